"""Definitions from a database: rows as mounts, over SQLite and over a PostgreSQL server of this run."""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, MetaData, Numeric, String, Table

from genro_storage import StorageManager
from genro_storage.config import DatabaseSource, MemoryDefinition, S3Definition, load
from genro_storage.errors import StorageConfigError, StorageUnavailableError

_METADATA = MetaData()
MOUNTS = Table(
    'mounts',
    _METADATA,
    Column('tenant', String),
    Column('name', String, primary_key=True),
    Column('type', String),
    Column('bucket', String),
    Column('endpoint_url', String),
    Column('key', String),
    Column('secret', String),
    Column('anon', Boolean),
    Column('uid', BigInteger),
    Column('ttl', Numeric),
    Column('definition', JSON),
)
COLUMNS = [column.name for column in MOUNTS.columns if column.name != 'tenant']
ROWS: list[dict[str, Any]] = [
    {'tenant': 't1', 'name': 'b', 'type': 'memory', 'definition': {'permissions': 'readonly'}, 'ttl': 2.5, 'uid': 1000},
    {'tenant': 't1', 'name': 'a', 'type': 's3', 'bucket': 'b', 'anon': True},
    {'tenant': 't2', 'name': 'c', 'type': 's3', 'bucket': 'b', 'key': 'AK', 'secret': 'hunter2', 'anon': False},
]


def fill(url: str) -> None:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        _METADATA.drop_all(connection)
        _METADATA.create_all(connection)
        for row in ROWS:
            connection.execute(MOUNTS.insert().values(**row))
    engine.dispose()


@pytest.fixture(scope='module')
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server, Debian's package, run by a user who is not root."""
    programs = [shutil.which(name) for name in ('initdb', 'postgres')]
    if None in programs:
        found = sorted(Path('/usr/lib/postgresql').glob('*/bin/postgres'))
        if not found:
            pytest.fail('needs a PostgreSQL server: apt-get install postgresql')
        programs = [str(found[-1].with_name('initdb')), str(found[-1])]
    # Not below pytest's folder, which only root may enter; and short, because a socket's path is.
    folder = Path(tempfile.mkdtemp(prefix='pg-', dir='/tmp'))
    unprivileged: dict[str, Any] = {}
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        unprivileged = {'user': 65534, 'group': 65534, 'extra_groups': []}
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    password = folder / 'password'
    password.write_text('pg-hunter2')
    password.chmod(0o644)
    data = str(folder / 'data')
    init = [programs[0], '-D', data, '-U', 'tester', '-A', 'scram-sha-256', '-E', 'UTF8', '--locale=C', '--no-sync']
    environ = {**os.environ, 'HOME': str(folder)}
    subprocess.run(
        [*init, f'--pwfile={password}'],
        check=True,
        capture_output=True,
        timeout=50,
        cwd=folder,
        env=environ,
        **unprivileged,
    )
    server = [programs[1], '-D', data, '-h', '127.0.0.1', '-p', str(port), '-k', str(folder), '-F']
    with open(folder / 'log', 'wb') as log:
        process = subprocess.Popen(server, cwd=folder, env=environ, stdout=log, stderr=log, **unprivileged)
    url = f'postgresql+psycopg://tester:pg-hunter2@127.0.0.1:{port}/postgres'
    try:
        _await(url, process, folder / 'log')
        yield url
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _await(url: str, process: 'subprocess.Popen[bytes]', log: Path) -> None:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    deadline = time.monotonic() + 40
    while True:
        try:
            engine.connect().close()
        except sqlalchemy.exc.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.05)
        else:
            return


@pytest.fixture(params=['sqlite', 'postgresql'])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the rows above."""
    url = f'sqlite:///{tmp_path}/mounts.db' if request.param == 'sqlite' else request.getfixturevalue('postgres')
    fill(url)
    return str(url)


def test_rows_become_mounts(url: str) -> None:
    a, b, c = load(DatabaseSource(url, 'mounts', columns=COLUMNS)).mounts
    assert a == S3Definition(name='a', bucket='b', anon=True)
    assert b == MemoryDefinition(name='b', permissions=b.permissions, ttl_s=2.5, uid=1000)
    assert b.permissions.value == 'readonly'
    assert c == S3Definition(name='c', bucket='b', key='AK', secret='hunter2')


def test_a_query_takes_parameters_that_are_no_part_of_its_text(url: str) -> None:
    columns = ', '.join(COLUMNS)
    query = f'SELECT {columns} FROM mounts WHERE tenant = :tenant ORDER BY name'
    assert [m.name for m in load(DatabaseSource(url, query=query, parameters={'tenant': 't1'})).mounts] == ['a', 'b']
    assert load(DatabaseSource(url, query=query, parameters={'tenant': "' OR ''='"})).mounts == ()


def test_an_engine_will_do_and_stays_usable(url: str) -> None:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    source = DatabaseSource(engine, 'mounts', columns=COLUMNS)
    assert len(load(source).mounts) == 3
    assert len(load(source).mounts) == 3
    with pytest.raises(StorageConfigError, match="give the URL as 'env:NAME'"):
        pickle.dumps(source)


def test_a_column_that_is_no_key_is_not_overlooked(url: str) -> None:
    with pytest.raises(StorageConfigError, match="mount 'a': unknown key 'tenant'") as caught:
        load(DatabaseSource(url, 'mounts'))
    assert str(caught.value).startswith("table 'mounts' of ")


@pytest.mark.parametrize(
    ('asked', 'message'),
    [
        ({'table': 'mouns'}, 'no such table'),
        ({'table': 'mounts', 'columns': ['name', 'typo']}, 'no such column: typo'),
        ({'query': 'SELECT name FRM mounts'}, 'the database refuses this'),
        ({'query': 'SELECT name FROM mouns'}, 'the database refuses this'),
        ({'query': 'SELECT name FROM mounts WHERE tenant = :t'}, 'cannot be asked for|refuses'),
    ],
)
def test_what_is_not_there_is_told(url: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(StorageConfigError, match=message) as caught:
        load(DatabaseSource(url, **asked))
    assert 'hunter2' not in str(caught.value)


def test_rows_are_read_anew_each_time_and_replace_themselves(url: str) -> None:
    source = DatabaseSource(url, 'mounts', columns=COLUMNS)
    with StorageManager() as storage:
        storage.configure(source)
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            connection.execute(MOUNTS.update().where(MOUNTS.c.name == 'b').values(ttl=7))
        storage.configure(DatabaseSource(url, 'mounts', columns=COLUMNS))
        assert storage.volume('b').definition.ttl_s == 7.0


class TestSqlite:
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f'sqlite:///{tmp_path}/any.db'

    def rows(self, url: str, *rows: dict[str, Any]) -> None:
        columns = sorted({column for row in rows for column in row})
        table = Table('m', MetaData(), Column('id', Integer, primary_key=True), *(Column(name) for name in columns))
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            listed = ', '.join(columns)
            connection.exec_driver_sql(f'CREATE TABLE m ({listed})')
            for row in rows:
                named = ', '.join(f':{name}' for name in columns)
                statement = sqlalchemy.text(f'INSERT INTO {table.name} VALUES ({named})')
                connection.execute(statement, {name: row.get(name) for name in columns})
        engine.dispose()

    def test_json_in_a_text_column_holds_further_keys(self, url: str) -> None:
        self.rows(url, {'name': 'a', 'said': json.dumps({'type': 'memory', 'ttl': '5s'})})
        assert load(DatabaseSource(url, 'm', json_column='said')).mounts == (MemoryDefinition(name='a', ttl_s=5.0),)

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('{"secret": "hunter2"', "row 1: column 'definition' holds no JSON"),
            ('["hunter2"]', "row 1: column 'definition': expected a JSON object"),
            ('{"name": "hunter2"}', "row 1: 'name' both as a column and inside the JSON"),
        ],
    )
    def test_json_that_does_not_fit_is_told_and_not_shown(self, url: str, text: str, message: str) -> None:
        self.rows(url, {'name': 'a', 'definition': text})
        with pytest.raises(StorageConfigError, match=message) as caught:
            load(DatabaseSource(url, 'm'))
        assert 'hunter2' not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_a_row_is_not_trusted_unless_it_is_allowed(self, url: str) -> None:
        self.rows(url, {'name': 'a', 'type': 'local', 'path': '/x'})
        with pytest.raises(StorageConfigError, match="mount 'a': key 'path': an untrusted source may not name a path"):
            load(DatabaseSource(url, 'm'))
        assert load(DatabaseSource(url, 'm', allow=['local'])).mounts

    def test_a_database_that_is_not_there_is_out_of_reach(self, tmp_path: Path) -> None:
        with pytest.raises(StorageUnavailableError, match='unable to open database file'):
            load(DatabaseSource(f'sqlite:///{tmp_path}/no/such.db', 'm'))

    def test_the_url_may_be_a_reference(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows(url, {'name': 'a', 'type': 'memory'})
        source = DatabaseSource('env:DB', 'm')
        with pytest.raises(StorageConfigError, match='env:DB: this environment variable is not set'):
            load(source)
        monkeypatch.setenv('DB', url)
        again = pickle.loads(pickle.dumps(source))
        assert again == source
        assert load(again).mounts == (MemoryDefinition(name='a'),)


def test_a_password_is_neither_shown_nor_pickled() -> None:
    source = DatabaseSource('postgresql+psycopg://me:hunter2@127.0.0.1:1/x?sslpassword=hunter2', 'm')
    assert 'hunter2' not in repr(source)
    with pytest.raises(StorageConfigError, match="give the URL as 'env:NAME'"):
        pickle.dumps(source)
    with pytest.raises(StorageUnavailableError, match='does not answer') as caught:
        load(source)
    assert 'hunter2' not in str(caught.value)
    assert 'hunter2' not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ('url', 'message'),
    [('hunter2', 'expected a URL of SQLAlchemy'), ('nosuch://x/y', 'the driver of this database is not installed')],
)
def test_a_url_that_is_none_is_told(url: str, message: str) -> None:
    with pytest.raises(StorageConfigError, match=message):
        load(DatabaseSource(url, 'm'))


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'sqlalchemy', None)
    with pytest.raises(StorageConfigError, match=r"pip install 'genro-storage\[db\]'"):
        load(DatabaseSource('sqlite://', 'm'))


def test_either_a_table_or_a_query_is_asked_for() -> None:
    with pytest.raises(TypeError, match="either a 'table' or a 'query'"):
        DatabaseSource('sqlite://')
    with pytest.raises(TypeError, match="either a 'table' or a 'query'"):
        DatabaseSource('sqlite://', 'm', query='SELECT 1')
    with pytest.raises(TypeError, match="'columns' are those of a table"):
        DatabaseSource('sqlite://', query='SELECT 1', columns=['a'])
