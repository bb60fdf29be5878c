"""Writes to a mounted bucket: this project, rclone and s3fs-fuse, taking turns in one run.

Run from the project's root, as root: python -m tests.bench.writes [--rounds 3] [--docs docs]. One S3 server beside
them, a new bucket for each turn and a new directory for each row. What a turn has timed is looked for in the bucket,
past whoever mounts it: a peer that says it is done while objects are missing or wrong has failed the row, unless it is
one that uploads later, which the table then says.
"""
# ruff: noqa: T201 - a program that prints

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import peers, plot, publishing, write_load
from tests.bench.peers import OURS_WRITING, RCLONE, S3FS, WRITEBACK, Bucket, Mounted, Peer
from tests.bench.reads import touch_memory
from tests.bench.write_load import WORKLOADS, Stored
from tests.servers import S3Server, running_s3_server

ROOT = Path(__file__).parents[2]
LOAD_TIMEOUT_S = 300
#: rclone begins to upload 5 s after a close, and takes another 5 s or so for 300 files.
UPLOAD_TIMEOUT_S = 120
_POLL_S = 0.1
RAW = 'raw file'
LATER = '†'
SECTION = 'writes'


class Goal(NamedTuple):
    """What to reach: at most `limit` times the seconds of a peer, or of the best one."""

    limit: float
    peer: Peer | None = None


class Row(NamedTuple):
    """One line of the table. drain: also how long until everything is uploaded, as a line of its own."""

    workload: str
    label: str
    goal: Goal | None = None
    drain: bool = False

    @property
    def drain_label(self) -> str:
        """The label of that line."""
        return f'{self.label}, until uploaded'


DURABLE = (
    Row('small', '300 files of 8 KiB', Goal(0.6, S3FS)),
    Row('four', '300 files of 8 KiB, four writers', Goal(0.3, S3FS)),
    Row('large', '256 MiB and fsync', Goal(0.7, S3FS)),
    Row('remove', 'rm -r of 300 files', Goal(0.8)),
    Row('append', 'append 1 KiB to 256 MiB'),
    Row('save', '50 saves of an editor'),
    Row('rename', 'rename of a directory of 300 files'),
    Row('unpack', 'tar x of 300 files'),
    Row('copy', 'cp -r of 300 files'),
)
#: Ours with 'durability: writeback' against who always uploads later.
LATE = (
    Row('small', '300 files of 8 KiB, writeback', Goal(0.8, RCLONE), drain=True),
    Row('stream', '256 MiB, writeback', Goal(0.8, RCLONE), drain=True),
)
RAW_WORKLOADS = ('small', 'four', 'large')
NAMES = [OURS_WRITING.name, RCLONE.name, S3FS.name, RAW]


class RowFailedError(Exception):
    """A peer has not done what was to be timed; the message says why."""


class Results:
    """What was measured, for each line and peer."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, list[float]]] = {}
        self.failures: dict[tuple[str, str], str] = {}
        self.later: set[tuple[str, str]] = set()  # returned while objects were still missing
        self.daemon_mib = 0.0

    def note(self, label: str, name: str, seconds: float) -> None:
        self.seconds.setdefault(label, {}).setdefault(name, []).append(seconds)

    def fail(self, label: str, name: str, reason: str) -> None:
        print(f'{name}: {label}: {reason}', file=sys.stderr, flush=True)
        self.failures.setdefault((label, name), reason)

    def medians(self) -> dict[str, dict[str, float]]:
        """Of whoever has not failed, the lines in the order of the table."""
        return {
            label: {
                name: statistics.median(values)
                for name, values in self.seconds.get(label, {}).items()
                if (label, name) not in self.failures
            }
            for label, _ in lines()
        }


class Turn:
    """One peer with a bucket of its own."""

    def __init__(self, peer: Peer, server: S3Server, bucket: Bucket, source: Path, results: Results) -> None:
        self._peer = peer
        self._server = server
        self._bucket = bucket
        self._source = source
        self._results = results

    def seed(self) -> None:
        """Store what must be there before anybody mounts the bucket."""
        for row in DURABLE:
            for name, size_bytes in (WORKLOADS[row.workload].seed or {}).items():
                put_large(self._server, self._bucket.name, f'{row.workload}/{name}', size_bytes)

    def take(self, folder: Path) -> None:
        """All rows of this peer; what becomes of a row does not keep the next one from being tried."""
        with peers.mounted(self._peer, self._bucket, folder / 'durable') as mounted:
            for row in DURABLE:
                self._row(row, mounted.directory, row.workload)
            if self._peer is RCLONE:
                for row in LATE:
                    self._row(row, mounted.directory, f'late-{row.workload}')
            if self._peer is OURS_WRITING:
                self._weigh(mounted)
        if self._peer is OURS_WRITING:
            for row in LATE:
                # Each to itself: what ends it is the end of the mount.
                with peers.mounted(self._peer, self._bucket, folder / f'late-{row.workload}') as mounted:
                    self._row(row, mounted.directory.with_name(WRITEBACK), f'late-{row.workload}', mounted)

    def _row(self, row: Row, directory: Path, name: str, draining: Mounted | None = None) -> None:
        workload = WORKLOADS[row.workload]
        prefix = f'{WRITEBACK}/{name}/' if draining else f'{name}/'
        try:
            load('prepare', row.workload, directory / name, self._source)
            self._wait_for(prefix, workload.before or {})
            began, seconds = load('run', row.workload, directory / name, self._source)
            problem = self._difference(prefix, workload.after)
            if problem is not None and self._claims(draining):
                raise RowFailedError(f'said that it was done, but {problem}')
            if problem is not None:
                self._results.later.add((row.label, self._peer.name))
            if draining is not None:
                self._weigh(draining)
                umount(draining.directory.parent)
            self._wait_for(prefix, workload.after)
            drained_s = time.monotonic() - began
        except RowFailedError as error:
            for label in [row.label, row.drain_label] if row.drain else [row.label]:
                self._results.fail(label, self._peer.name, str(error))
            return
        self._results.note(row.label, self._peer.name, seconds)
        if row.drain:
            self._results.note(row.drain_label, self._peer.name, drained_s)

    def _claims(self, draining: Mounted | None) -> bool:
        """Whether a close or an fsync that has returned says that the objects are there."""
        return self._peer is not RCLONE and draining is None

    def _wait_for(self, prefix: str, expected: dict[str, Stored]) -> None:
        deadline = time.monotonic() + UPLOAD_TIMEOUT_S
        while (problem := self._difference(prefix, expected)) is not None:
            if time.monotonic() > deadline:
                raise RowFailedError(f'after {UPLOAD_TIMEOUT_S} s {problem}')
            time.sleep(_POLL_S)

    def _difference(self, prefix: str, expected: dict[str, Stored]) -> str | None:
        """What of a part of the bucket is not as it must be; None if all is."""
        return difference(objects(self._server, self._bucket.name, prefix), expected)

    def _weigh(self, mounted: Mounted) -> None:
        self._results.daemon_mib = max(self._results.daemon_mib, mounted.peak_mib())


def objects(server: S3Server, bucket: str, prefix: str) -> dict[str, Stored]:
    """What is stored below a prefix, without the markers of directories."""
    found: dict[str, Stored] = {}
    asked: dict[str, Any] = {'Bucket': bucket, 'Prefix': prefix}
    while True:
        answer = server.request('list_objects_v2', **asked)
        for item in answer.get('Contents', []):
            if not item['Key'].endswith('/'):
                found[item['Key'].removeprefix(prefix)] = Stored(item['Size'], item['ETag'].strip('"'))
        if not answer['IsTruncated']:
            return found
        asked['ContinuationToken'] = answer['NextContinuationToken']


def difference(found: dict[str, Stored], expected: dict[str, Stored]) -> str | None:
    """How two sets of objects differ, if they do. An ETag that is no MD5 (of an object in parts) says nothing."""
    missing = expected.keys() - found.keys()
    if missing:
        return f'{len(missing)} of {len(expected)} objects are missing, {min(missing)!r} first'
    surplus = found.keys() - expected.keys()
    if surplus:
        return f'{len(surplus)} objects are there that should not, {min(surplus)!r} first'
    for name, stored in expected.items():
        if found[name].size_bytes != stored.size_bytes:
            return f'{name!r} has {found[name].size_bytes} bytes instead of {stored.size_bytes}'
        if stored.md5 is not None and '-' not in (found[name].md5 or '-') and found[name].md5 != stored.md5:
            return f'{name!r} has other bytes'
    return None


def put_large(server: S3Server, bucket: str, key: str, size_bytes: int) -> None:
    part_bytes = 32 << 20
    upload = {'Bucket': bucket, 'Key': key}
    upload['UploadId'] = server.request('create_multipart_upload', **upload)['UploadId']
    parts = []
    for number in range(1, size_bytes // part_bytes + 1):
        answer = server.request('upload_part', **upload, PartNumber=number, Body=os.urandom(part_bytes))
        parts.append({'PartNumber': number, 'ETag': answer['ETag']})
    server.request('complete_multipart_upload', **upload, MultipartUpload={'Parts': parts})


def load(step: str, workload: str, directory: Path, source: Path, *options: str) -> tuple[float, float]:
    """Run a step of a workload; when it began and its seconds, both 0 of what is not timed. Raises RowFailedError."""
    command = [sys.executable, '-m', 'tests.bench.write_load', step, workload, str(directory), str(source), *options]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=LOAD_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise RowFailedError(f'{step}: not done after {LOAD_TIMEOUT_S} s') from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ['it says nothing'])[-1]
        raise RowFailedError(f'{step}: {last}') from error
    timed = json.loads(done.stdout or '{"started": 0, "seconds": 0}')
    return timed['started'], timed['seconds']


def umount(mountpoint: Path) -> None:
    """What a user does to be sure that all is uploaded. Raises RowFailedError."""
    command = [str(Path(sys.executable).with_name('genro-umount')), str(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOAD_TIMEOUT_S)
    if done.returncode:
        raise RowFailedError(f'genro-umount: {done.stderr.strip()}')


@contextmanager
def new_bucket(server: S3Server) -> Iterator[Bucket]:
    """A bucket with room; removed afterwards with all that is in it, or the disk would be full before the end."""
    name = server.new_bucket()
    server.put(name, 'ready', b'1')  # the first object of a bucket makes the server allocate volumes
    try:
        yield Bucket(server.endpoint_url, name, server.key, server.secret)
    finally:
        server.request('delete_bucket', Bucket=name)


def measure(server: S3Server, rounds: int, folder: Path, chosen: tuple[Peer, ...]) -> Results:
    results = Results()
    source = folder / 'source'
    write_load.make_source(source)
    for number in range(1, rounds + 1):
        for row in DURABLE:
            if row.workload in RAW_WORKLOADS:
                raw = folder / f'raw-{number}-{row.workload}'
                load('prepare', row.workload, raw, source)
                results.note(row.label, RAW, load('run', row.workload, raw, source, '--fsync')[1])
                peers.free(raw)
        # The order turns, so that nobody always comes after the same one.
        turn = number % len(chosen)
        for peer in chosen[turn:] + chosen[:turn]:
            print(f'round {number} of {rounds}: {peer.name}', file=sys.stderr, flush=True)
            with new_bucket(server) as bucket:
                one = Turn(peer, server, bucket, source, results)
                one.seed()
                touch_memory()
                one.take(folder / f'{number}-{peer.name}')
    return results


def lines() -> Iterator[tuple[str, Goal | None]]:
    """The lines of the table and their goals."""
    for row in (*DURABLE, *LATE):
        yield row.label, row.goal
        if row.drain:
            yield row.drain_label, None


def table(results: Results) -> str:
    """In Markdown; each line with a goal says whether it is met."""
    lines_of_table = ['| workload, s | ' + ' | '.join(NAMES) + ' | ratio | goal | |', '|---' * 8 + '|']
    of = results.medians()
    for label, goal in lines():
        cells = ' | '.join(_cell(results, label, name, of[label].get(name)) for name in NAMES)
        lines_of_table.append(f'| {label} | {cells} | {_verdict(of[label], goal)} |')
    return '\n'.join(lines_of_table)


def _cell(results: Results, label: str, name: str, seconds: float | None) -> str:
    if (label, name) in results.failures:
        return 'failed'
    mark = f' {LATER}' if (label, name) in results.later else ''
    return '' if seconds is None else f'{seconds:.3f}{mark}'


def _verdict(seconds: dict[str, float], goal: Goal | None) -> str:
    """The cells behind the figures: ratio, goal, whether it is met."""
    if goal is None:
        return ' | | '
    others = [goal.peer] if goal.peer is not None else [RCLONE, S3FS]
    reach = f'≤ {goal.limit} × {goal.peer.name if goal.peer is not None else "best peer"}'
    best = min((seconds[peer.name] for peer in others if peer.name in seconds), default=math.nan)
    ratio = seconds.get(OURS_WRITING.name, math.nan) / best
    if math.isnan(ratio):
        return f' | {reach} | not compared'
    return f'{ratio:.2f} | {reach} | {"met" if ratio <= goal.limit else "**missed**"}'


def remarks(results: Results) -> str:
    """What must be said beside the table."""
    said = [
        f'{LATER} returned before the objects were there.',
        f'The daemon held {results.daemon_mib:.0f} MiB at most (peak RSS, the largest of all rounds).',
    ]
    said += [f'{name} failed "{label}": {reason}.' for (label, name), reason in results.failures.items()]
    return '\n'.join(f'- {line}' for line in said)


def publish(results: Results, docs: Path) -> None:
    """Put the table and the plot into the documentation."""
    publishing.replace(docs / 'benchmarks.md', SECTION, f'{table(results)}\n\n{remarks(results)}')
    rows = [plot.Row(label, seconds) for label, seconds in results.medians().items() if seconds]
    (docs / 'writes.svg').write_text(plot.dot_plot('Writes to a mounted bucket, median seconds', rows))


def main() -> int:
    arguments = publishing.options('Compare writes to a mounted bucket.', 'writes.svg')
    for problem in peers.missing():
        print(problem, file=sys.stderr)
        return 2
    if arguments.docs:
        publishing.around(arguments.docs / 'benchmarks.md', SECTION)  # what is wrong with it, before minutes are spent
    chosen = (OURS_WRITING,) if arguments.only_ours else (OURS_WRITING, RCLONE, S3FS)
    with tempfile.TemporaryDirectory(prefix='write-bench-') as name:
        folder = Path(name)
        (folder / 'server').mkdir()
        with running_s3_server(folder / 'server', frugal=False) as server:
            results = measure(server, arguments.rounds, folder, chosen)
    print(f'{table(results)}\n\n{remarks(results)}')
    if arguments.json:
        arguments.json.write_text(json.dumps(results.seconds, indent=2) + '\n')
    if arguments.docs:
        publish(results, arguments.docs)
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
