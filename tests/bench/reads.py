"""Reads of a mounted bucket: this project, rclone and s3fs-fuse, taking turns in one run.

Run from the project's root, as root: python -m tests.bench.reads [--rounds 3] [--docs docs]. One S3 server beside them,
once as it is and once behind a round trip of 10 ms. The raw rows read the same bytes from a local file, in the same
run.
"""
# ruff: noqa: T201 - a program that prints

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench import peers, plot, publishing, read_load
from tests.bench.peers import OURS, RCLONE, S3FS, Bucket, Peer
from tests.servers import S3Server, running_s3_server

ROOT = Path(__file__).parents[2]
LOAD_TIMEOUT_S = 600
#: More than a turn fills: files, what peers cache of them, and the page cache of both.
WARM_BYTES = 4 << 30
ROUND_TRIP_MS = 10
RAW = 'raw file'
NEAR_NAME, FAR_NAME = '0 ms', f'{ROUND_TRIP_MS} ms'
SECTION = 'reads'


class Goal(NamedTuple):
    """What to reach: at most `limit` times the seconds of the best peer, or of the raw file."""

    limit: float
    of_raw: bool = False


NEAR = {
    'first byte of an unseen file': Goal(0.5),
    '512 MiB file, cold': Goal(0.85),
    '512 MiB again, page cache dropped': Goal(1.3, of_raw=True),
    '5,000 random 4 KiB, page cache dropped': Goal(1.3, of_raw=True),
    '200,000 random 4 KiB, in memory': Goal(1.5, of_raw=True),
    'four 64 MiB files at once, cold': Goal(0.8),
    'ls -lR, 3,000 files, cold': Goal(0.5),
    'cat of 1,000 small files, cold': Goal(0.35),
    'cat of 1,000 small files again': Goal(0.5),
}
FAR = {'ls -lR, 3,000 files, cold': Goal(0.4), 'cat of 300 small files, cold': Goal(0.25)}
RAW_WORKLOADS = [name for name, goal in NEAR.items() if goal.of_raw]

#: (round trip, workload) → peer → seconds, one per round.
Figures = dict[str, dict[str, list[float]]]


def fill(server: S3Server) -> Bucket:
    """A bucket with everything that the workloads read."""
    name = server.new_bucket()
    chunk = os.urandom(1 << 20)

    def large(key: str, size_bytes: int) -> None:
        part_bytes = 32 << 20
        upload = {'Bucket': name, 'Key': key}
        upload['UploadId'] = server.request('create_multipart_upload', **upload)['UploadId']
        parts = []
        for number in range(1, size_bytes // part_bytes + 1):
            answer = server.request('upload_part', **upload, PartNumber=number, Body=chunk * (part_bytes >> 20))
            parts.append({'PartNumber': number, 'ETag': answer['ETag']})
        server.request('complete_multipart_upload', **upload, MultipartUpload={'Parts': parts})

    server.put(name, 'unseen', chunk)
    large('large', read_load.LARGE_BYTES)
    for number in range(read_load.PARALLEL_FILES):
        large(f'parallel{number}', 64 << 20)
    keys = [f'small/d{number // 100}/f{number}' for number in range(1000)]
    keys += [f'tree/d{number // 100}/f{number}' for number in range(3000)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: server.put(name, key, chunk[:4096]), keys))
    return Bucket(server.endpoint_url, name, server.key, server.secret)


@contextmanager
def delayed(bucket: Bucket, round_trip_ms: float) -> Iterator[Bucket]:
    """The same bucket, further away."""
    port = bucket.endpoint_url.rpartition(':')[2]
    process = subprocess.Popen(
        [sys.executable, '-m', 'tests.bench.delay_proxy', port, str(round_trip_ms)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield bucket._replace(endpoint_url=f'http://127.0.0.1:{int(process.stdout.readline())}')
    finally:
        process.kill()
        process.wait()


def touch_memory() -> None:
    """Have the free memory of a virtual machine be there for everybody alike.

    What its host took back while nobody used it comes again at a microsecond or more for each page, and whoever first
    fills a page cache would pay for those who come later: the same 512 MiB took 2.7 s, then 2.1 s, then 1.3 s.
    """
    subprocess.run([sys.executable, '-c', f"b'x' * ({WARM_BYTES})"], check=True, timeout=LOAD_TIMEOUT_S)


def run_load(directory: Path, workloads: list[str]) -> dict[str, float]:
    command = [sys.executable, '-m', 'tests.bench.read_load', str(directory), *workloads]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=LOAD_TIMEOUT_S)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def measure(bucket: Bucket, rounds: int, folder: Path, chosen: tuple[Peer, ...]) -> tuple[dict[str, Figures], float]:
    """All figures, and the most memory that our daemon held, in MiB."""
    chunk = os.urandom(1 << 20)
    figures: dict[str, Figures] = {NEAR_NAME: {}, FAR_NAME: {}}
    most_mib = 0.0

    def note(distance: str, name: str, seconds: dict[str, float]) -> None:
        for workload, value in seconds.items():
            figures[distance].setdefault(workload, {}).setdefault(name, []).append(value)

    with delayed(bucket, ROUND_TRIP_MS) as far:
        for number in range(1, rounds + 1):
            # Written right before it is read, as the peers' cache files are: a disk is slower for a while after that.
            raw = folder / f'raw-{number}'
            raw.mkdir()
            (raw / 'large').write_bytes(chunk * (read_load.LARGE_BYTES >> 20))
            note(NEAR_NAME, RAW, run_load(raw, RAW_WORKLOADS))
            peers.free(raw)
            # The order turns, so that nobody always comes after the same one.
            turn = number % len(chosen)
            for peer in chosen[turn:] + chosen[:turn]:
                print(f'round {number} of {rounds}: {peer.name}', file=sys.stderr, flush=True)
                touch_memory()
                with peers.mounted(peer, bucket, folder / f'near-{number}-{peer.name}') as mounted:
                    note(NEAR_NAME, peer.name, run_load(mounted.directory, list(NEAR)))
                    if peer is OURS:
                        most_mib = max(most_mib, mounted.peak_mib())
                with peers.mounted(peer, far, folder / f'far-{number}-{peer.name}') as mounted:
                    note(FAR_NAME, peer.name, run_load(mounted.directory, list(FAR)))
    return figures, most_mib


def medians(figures: dict[str, Figures]) -> dict[tuple[str, str], dict[str, float]]:
    """(round trip, workload) → peer → seconds."""
    return {
        (distance, workload): {name: statistics.median(values) for name, values in of.items()}
        for distance, workloads in figures.items()
        for workload, of in workloads.items()
    }


def table(of: dict[tuple[str, str], dict[str, float]]) -> str:
    """In Markdown; each line says whether its goal is met."""
    names = [OURS.name, RCLONE.name, S3FS.name, RAW]
    lines = ['| round trip | workload, s | ' + ' | '.join(names) + ' | ratio | goal | |', '|---' * 9 + '|']
    for distance, goals in zip((NEAR_NAME, FAR_NAME), (NEAR, FAR), strict=True):
        for workload, goal in goals.items():
            seconds = of[distance, workload]
            others = [seconds[name] for name in (RCLONE.name, S3FS.name) if name in seconds]
            reference = seconds[RAW] if goal.of_raw else min(others, default=float('nan'))
            ratio = seconds[OURS.name] / reference
            cells = ' | '.join(f'{seconds[name]:.3f}' if name in seconds else '' for name in names)
            reach = f'≤ {goal.limit} × {"raw" if goal.of_raw else "best peer"}'
            verdict = 'met' if ratio <= goal.limit else '**missed**'
            lines.append(f'| {distance} | {workload} | {cells} | {ratio:.2f} | {reach} | {verdict} |')
    return '\n'.join(lines)


def publish(of: dict[tuple[str, str], dict[str, float]], daemon_mib: float, rounds: int, docs: Path) -> None:
    """Put the table and the plot into the documentation."""
    memory = f'The daemon held {daemon_mib:.0f} MiB at most (peak RSS over all of it, the largest of {rounds} rounds).'
    publishing.replace(docs / 'benchmarks.md', SECTION, f'{table(of)}\n\n{memory}')
    rows = [plot.Row(f'{workload}, {distance}', seconds) for (distance, workload), seconds in of.items()]
    (docs / 'reads.svg').write_text(plot.dot_plot('Reads of a mounted bucket, median seconds', rows))


def main() -> int:
    arguments = publishing.options('Compare reads of a mounted bucket.', 'reads.svg')
    for problem in peers.missing():
        print(problem, file=sys.stderr)
        return 2
    chosen = (OURS,) if arguments.only_ours else peers.PEERS
    with tempfile.TemporaryDirectory(prefix='read-bench-') as name:
        folder = Path(name)
        (folder / 'server').mkdir()
        with running_s3_server(folder / 'server', frugal=False) as server:
            figures, daemon_mib = measure(fill(server), arguments.rounds, folder, chosen)
    of = medians(figures)
    print(table(of))
    print(f'\npeak RSS of the daemon: {daemon_mib:.0f} MiB')
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + '\n')
    if arguments.docs:
        publish(of, daemon_mib, arguments.rounds, arguments.docs)
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
