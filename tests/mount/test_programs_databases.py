"""SQLite and DuckDB on the mounted tree: transactions, locks between processes, and what is whole behind the mount.

Everything runs in child processes: Python's sqlite3 is SQLite's own library.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.behind import fetched
from tests.mount.mounted import run
from tests.mount.places import Place
from tests.mount.shortcomings import READERS_KEEP
from tests.servers import S3Server

on_both = pytest.mark.parametrize('place', ['bucket', 'local'], indirect=True)
each_journal = pytest.mark.parametrize('journal', ['delete', 'truncate', 'persist', 'wal'])

OPEN = """
import sqlite3, sys
database = sqlite3.connect('db', timeout=30, isolation_level=None)
execute = database.execute
def one(query): return execute(query).fetchone()[0]
"""
ONLY_READING = OPEN.replace("'db',", "'file:db?mode=ro', uri=True,")
FILL = """
assert one('pragma journal_mode = ' + sys.argv[1]) == sys.argv[1]
execute('create table items (number integer primary key, text)')
execute('create table counter (value)')
execute('insert into counter values (0)')
for first in range(0, 500, 100):
    execute('begin')
    database.executemany('insert into items values (?, ?)', [(n, f'item {n} ' * 20) for n in range(first, first + 100)])
    execute('commit')
execute('begin'); execute('delete from items'); execute('rollback')
execute('update items set text = upper(text) where number % 2')
execute('create index by_text on items (text)')
execute('delete from items where number >= 400'); execute('vacuum')
assert one('pragma integrity_check') == 'ok'
"""
COUNT = """
for _ in range(int(sys.argv[1])):
    execute('begin immediate')
    value = one('select value from counter')
    execute('update counter set value = ?', (value + 1,))
    execute('commit')
"""
WATCH = """
import time
deadline = time.monotonic() + 30
print('reads', flush=True)
last = 0
while last < int(sys.argv[1]):
    assert time.monotonic() < deadline, last
    value = one('select value from counter')
    assert value >= last, (value, last)
    last = value
    assert one('select count(*) from items') == 400
    time.sleep(0.01)
"""


def python(place: Place, program: str, *arguments: object) -> str:
    return place.tree.run(sys.executable, '-c', program, *map(str, arguments), cwd=place.path)


@contextmanager
def together(place: Place, programs: Sequence[tuple[str, Sequence[object]]]) -> Iterator[None]:
    """Run Python programs beside what is in the block; each must succeed, and is ended by force if it does not end."""
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', program, *map(str, arguments)],
            cwd=place.path,
            env=dict(place.tree.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for program, arguments in programs
    ]
    try:
        yield
        for process in processes:
            output, errors = process.communicate(timeout=40)
            assert process.returncode == 0, output + errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def outside(place: Place, server: S3Server, folder: Path, *queries: str) -> list[str]:
    """What queries return on the database as it is behind the mount."""
    fetched(place, server, folder)
    program = 'import sqlite3, sys; d = sqlite3.connect("db"); [print(*d.execute(q).fetchone()) for q in sys.argv[1:]]'
    done = run(sys.executable, '-c', program, *queries, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# SQLite


@on_both
@each_journal
def test_a_database_is_made_and_whole(place: Place, s3_server: S3Server, tmp_path: Path, journal: str) -> None:
    python(place, OPEN + FILL, journal)
    queries = 'pragma integrity_check', 'select count(*) from items', 'select text from items where number = 399'
    assert outside(place, s3_server, tmp_path / 'outside', *queries) == ['ok', '400', 'ITEM 399 ' * 20]
    assert place.names() - {'db-journal'} == {'db'}


@on_both
@each_journal
def test_processes_that_write_at_once_wait_for_each_other(
    place: Place, s3_server: S3Server, tmp_path: Path, journal: str
) -> None:
    python(place, OPEN + FILL, journal)
    with together(place, [(OPEN + COUNT, [8]), (OPEN + COUNT, [8]), (OPEN + WATCH, [16])]):
        pass
    assert python(place, OPEN + 'print(one("select value from counter"), one("pragma integrity_check"))') == '16 ok\n'
    queries = 'select value from counter', 'pragma integrity_check'
    assert outside(place, s3_server, tmp_path / 'outside', *queries) == ['16', 'ok']


@on_both
@each_journal
def test_who_opens_to_read_only_beside_who_writes_sees_what_is_committed(place: Place, journal: str) -> None:
    python(place, OPEN + FILL, journal)
    watching = ONLY_READING + WATCH
    count = f"""
import subprocess
watching = subprocess.Popen([sys.executable, '-c', {watching!r}, '6'], stdout=subprocess.PIPE)
assert watching.stdout.readline() == b'reads\\n'
{COUNT}
assert watching.wait(30) == 0
"""
    python(place, OPEN + count, 6)


@pytest.mark.parametrize('place', [pytest.param('bucket', marks=READERS_KEEP), 'local'], indirect=True)
def test_who_opened_to_read_only_before_others_write_sees_what_they_commit(place: Place) -> None:
    python(place, OPEN + FILL, 'delete')
    program = f"""
import subprocess
assert one('select value from counter') == 0
count = {OPEN + COUNT!r}
subprocess.run([sys.executable, '-c', count, '1'], check=True)
assert one('select value from counter') == 1
"""
    python(place, ONLY_READING + program)


@on_both
@each_journal
def test_what_a_killed_process_had_not_committed_is_rolled_back(
    place: Place, s3_server: S3Server, tmp_path: Path, journal: str
) -> None:
    python(place, OPEN + FILL, journal)
    killed = """
import os, signal
execute('pragma cache_size = 5'); execute('begin immediate')
execute('update items set text = number || text'); execute('delete from counter')
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run(sys.executable, '-c', OPEN + killed, cwd=place.path, env=place.tree.env)
    assert done.returncode == -9, done.stderr
    check = 'print(one("select count(*) from counter"), one("select text from items where number = 2")[:6])'
    assert python(place, OPEN + check) == '1 item 2\n'
    queries = 'select count(*) from counter', 'pragma integrity_check'
    assert outside(place, s3_server, tmp_path / 'outside', *queries) == ['1', 'ok']
