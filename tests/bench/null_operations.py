"""Null file systems over this project's transport and over mfusepy, under the same load.

Run from the project's root, where FUSE mounts are possible: python -m tests.bench.null_operations [--rounds 5]
Null means constant attributes and zeros: what is measured is the way from the kernel into Python and back. Servers and
load are processes of their own; the peers take turns within each round, and the median over the rounds counts.

Server and load share one CPU unless --all-cpus is given. Where they do not, each request waits twice for another CPU
to wake up, which in a virtual machine takes several times as long as the request, and whether they do is the
scheduler's mood: the same server made 12,000 or 28,000 stat/s on two CPUs, and 34,000 to 40,000 on one.
"""
# ruff: noqa: T201 - a program that prints

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from genro_storage import mountinfo

ROOT = Path(__file__).parents[2]
LOAD_TIMEOUT_S = 120
START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 10


class Operation(NamedTuple):
    """One line of the table. goal: how many times as good as the peer it should be.

    ttl_s: what the kernel may believe, the same for all. 0 for single requests, which must reach the server; libfuse's
    default for the listing, where what the kernel learns from one request it need not ask again.
    """

    title: str
    more_is_better: bool
    goal: float | None
    ttl_s: float = 0


OPERATIONS = {
    'stat': Operation('stat, 1/s', True, 1.3),
    'random_read': Operation('random 4 KiB read, 1/s', True, None),
    'sequential_read': Operation('sequential read, MB/s', True, None),
    'listing': Operation('ls -l of 10,000 files, s', False, 2.0, ttl_s=1),
}

OURS = 'devfuse'
#: The peer of the goals: libfuse's default of several threads, without which one request that waits for a backend
#: stops all others. Its single-threaded mode is measured beside it.
PEER, PEER_SINGLE = 'mfusepy', 'mfusepy, 1 thread'
SERVERS = {
    OURS: ['tests.bench.servers.devfuse_null'],
    PEER: ['tests.bench.servers.mfusepy_null'],
    PEER_SINGLE: ['tests.bench.servers.mfusepy_null', 'nothreads'],
}

#: Figures of one peer: operation to one value per round.
Figures = dict[str, list[float]]


def main() -> int:
    parser = argparse.ArgumentParser(description='Compare null file systems over devfuse and mfusepy.')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--all-cpus', action='store_true', help='let the scheduler place server and load')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write all figures there')
    arguments = parser.parse_args()
    for problem in missing():
        print(problem, file=sys.stderr)
        return 2
    if not arguments.all_cpus:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    figures: dict[str, Figures] = {name: {operation: [] for operation in OPERATIONS} for name in SERVERS}
    for number in range(1, arguments.rounds + 1):
        for name, server in SERVERS.items():
            print(f'round {number} of {arguments.rounds}: {name}', file=sys.stderr, flush=True)
            for operation, value in run_once(server).items():
                figures[name][operation].append(value)
    report(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + '\n')
    return 0


def missing() -> Iterator[str]:
    """What this machine lacks, with what to do about it."""
    if importlib.util.find_spec('mfusepy') is None:
        yield f'mfusepy, the peer, is missing: {sys.executable} -m pip install mfusepy'
    if shutil.which('fusermount3') is None:
        yield 'fusermount3 is missing: install the Debian package fuse3'
    if not Path('/dev/fuse').exists():
        yield '/dev/fuse is missing: modprobe fuse, or --device /dev/fuse in a container'


def run_once(server: list[str]) -> dict[str, float]:
    """Serve, load, unmount, for each TTL; figures by operation. Raises RuntimeError when a server does not come up."""
    figures: dict[str, float] = {}
    for ttl_s in sorted({operation.ttl_s for operation in OPERATIONS.values()}):
        wanted = [name for name, operation in OPERATIONS.items() if operation.ttl_s == ttl_s]
        with mounted(server, ttl_s) as mountpoint:
            command = [sys.executable, '-m', 'tests.bench.null_load', str(mountpoint), *wanted]
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=LOAD_TIMEOUT_S, start_new_session=True
            )
        figures |= json.loads(done.stdout)
    return figures


@contextmanager
def mounted(server: list[str], ttl_s: float) -> Iterator[Path]:
    """A fresh mountpoint that a server serves; nothing of it is left afterwards, whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix='null-bench-'))
    module, *arguments = server
    # A session of its own: Ctrl-C must reach the benchmark, which unmounts, and not the server below a mount.
    process = subprocess.Popen(
        [sys.executable, '-m', module, str(directory), str(ttl_s), *arguments], cwd=ROOT, start_new_session=True
    )
    try:
        wait_until_mounted(directory, process)
        yield directory
    finally:
        stop(directory, process)


def is_mounted(directory: Path) -> bool:
    mounts = mountinfo.mounts()
    return mountinfo.mount_at(mountinfo.resolve(directory, mounts), mounts) is not None


def wait_until_mounted(directory: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_mounted(directory):
        if process.poll() is not None:
            raise RuntimeError(f'{process.args} ended with status {process.returncode}')
        if time.monotonic() > deadline:
            raise RuntimeError(f'{process.args} did not mount within {START_TIMEOUT_S} s')
        time.sleep(0.01)


def stop(directory: Path, process: subprocess.Popen[bytes]) -> None:
    """Unmount lazily, because a load that was broken off may still be inside."""
    if is_mounted(directory):
        subprocess.run(['fusermount3', '-u', '-z', '--', str(directory)], check=True, timeout=STOP_TIMEOUT_S)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT_S)
    directory.rmdir()


def report(figures: dict[str, Figures]) -> None:
    """The table of medians, and a line for each goal."""
    medians = {
        name: {operation: statistics.median(values) for operation, values in of.items()} for name, of in figures.items()
    }
    print(f'{"":26}{"".join(f"{name:>20}" for name in SERVERS)}{"ratios":>14}')
    goals = []
    for key, operation in OPERATIONS.items():
        of = {name: medians[name][key] for name in SERVERS}
        ratios = {name: of[OURS] / of[name] if operation.more_is_better else of[name] / of[OURS] for name in SERVERS}
        cells = ''.join(f'{value:>20,.{0 if operation.more_is_better else 2}f}' for value in of.values())
        print(f'{operation.title:26}{cells}{ratios[PEER]:>7.2f}{ratios[PEER_SINGLE]:>7.2f}')
        if operation.goal is not None:
            verdict = 'met' if ratios[PEER] >= operation.goal else 'missed'
            goals.append(f'goal {operation.title}: {operation.goal}x {PEER} - {verdict}, {ratios[PEER]:.2f}x')
    print('\n'.join(goals))


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
