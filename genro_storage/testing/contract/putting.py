"""The contract of put and set_mtime, and the names that must survive them."""

# ruff: noqa: D102, S101 - the names of tests are sentences, and asserting is what they do

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from genro_storage import paths
from genro_storage.backends.base import ABSENT, Backend
from genro_storage.entry import Version
from genro_storage.errors import (
    StorageConflictError,
    StorageExistsError,
    StorageIOError,
    StorageIsADirectoryError,
    StorageNotADirectoryError,
    StorageNotFoundError,
    StoragePathError,
    StorageUnavailableError,
    StorageUnsupportedError,
)
from genro_storage.testing.contract.asking import agree, names, read, write
from genro_storage.testing.sources import BytesSource

# Each is one name in one directory. Keys, URLs, globs, shells and XML all have their own idea of some of these.
NAMES = [
    'plain.txt',
    'two words',
    ' leading space',
    'trailing space ',
    'new\nline',
    'tab\tbell\x07',
    'percent%20plus+and&',
    'question?hash#',
    'star*[a-z]{x}',
    'quote"\'',
    '~tilde',
    '.hidden',
    '...',
    'dot.',
    'colon:semicolon;',
    '<tag>&amp;',
    'grüße-日本語-🙂',
    'e\u0301 is not é',
    'n' * 255,
    'ü' * 127 + 'x',
]

# Beyond what any backend stores in one request.
LARGE_BYTES = 20 << 20


class PuttingContract:
    """put: its conditions, and what it refuses."""

    @pytest.mark.parametrize('placed', [False, True])
    def test_what_is_put_is_read_back(self, backend: Backend, placed: bool) -> None:
        data = bytes(range(256)) * 100
        entry = backend.put('file', BytesSource(data), placed=placed)
        assert agree(backend, entry, backend.stat('file'))
        assert entry.size_bytes == len(data)
        assert read(backend, 'file') == data

    @pytest.mark.parametrize('placed', [False, True])
    def test_a_put_replaces(self, backend: Backend, placed: bool) -> None:
        write(backend, 'd/file', b'a long first content')
        entry = backend.put('d/file', BytesSource(b'short'), placed=placed)
        assert agree(backend, entry, backend.stat('d/file'))
        assert read(backend, 'd/file') == b'short'
        assert names(backend, 'd') == {'file'}

    def test_missing_parents_appear(self, backend: Backend) -> None:
        write(backend, 'a/b/c/file', b'1')
        assert backend.stat('a').is_directory
        assert backend.stat('a/b/c').is_directory

    def test_a_large_file_is_stored_and_read_in_ranges(self, backend: Backend) -> None:
        block = os.urandom(1 << 16)
        data = block * (LARGE_BYTES // len(block)) + b'tail'
        entry = write(backend, 'd/large', data)
        assert agree(backend, entry, backend.stat('d/large'))
        assert entry.size_bytes == len(data)
        step = 7 << 20
        ranges = [backend.read_range('d/large', start, step, entry.version) for start in range(0, len(data), step)]
        assert b''.join(ranges) == data

    def test_a_large_file_obeys_conditions(self, backend: Backend) -> None:
        large = BytesSource(bytes(LARGE_BYTES))
        backend.put('large', large, expected=ABSENT)
        with pytest.raises(StorageExistsError):
            backend.put('large', large, expected=ABSENT)
        newer = write(backend, 'large', b'newer')
        with pytest.raises(StorageConflictError):
            backend.put('large', large, expected=Version('another', newer.version.strong if newer.version else True))
        assert read(backend, 'large') == b'newer'
        assert backend.put('large', large, expected=newer.version).size_bytes == LARGE_BYTES

    @pytest.mark.parametrize('placed', [False, True])
    def test_absent_creates_only_where_nothing_is(self, backend: Backend, placed: bool) -> None:
        backend.put('new', BytesSource(b'first'), expected=ABSENT, placed=placed)
        with pytest.raises(StorageExistsError) as caught:
            backend.put('new', BytesSource(b'second'), expected=ABSENT, placed=placed)
        assert isinstance(caught.value, FileExistsError)
        assert read(backend, 'new') == b'first'

    def test_absent_refuses_a_directory_too(self, backend: Backend) -> None:
        backend.make_directory('d')
        with pytest.raises(StorageExistsError):
            backend.put('d', BytesSource(b'1'), expected=ABSENT)

    @pytest.mark.parametrize('placed', [False, True])
    def test_a_version_is_replaced_only_while_it_is_there(self, backend: Backend, placed: bool) -> None:
        first = write(backend, 'file', b'first')
        second = backend.put('file', BytesSource(b'second one'), expected=first.version, placed=placed)
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(b'third'), expected=first.version, placed=placed)
        assert read(backend, 'file') == b'second one'
        assert backend.stat('file').version == second.version

    @pytest.mark.parametrize('placed', [False, True])
    def test_a_version_that_is_gone_is_a_conflict(self, backend: Backend, placed: bool) -> None:
        entry = write(backend, 'file', b'1')
        backend.remove_file('file')
        with pytest.raises(StorageConflictError):
            backend.put('file', BytesSource(b'2'), expected=entry.version, placed=placed)
        with pytest.raises(StorageNotFoundError):
            backend.stat('file')

    def test_a_source_that_ends_early_publishes_nothing(self, backend: Backend) -> None:
        write(backend, 'file', b'old')
        for path in ('file', 'new'):
            with pytest.raises(StorageIOError):
                backend.put(path, BytesSource(b'too short', size_bytes=100))
        assert read(backend, 'file') == b'old'
        assert names(backend) == {'file'}

    def test_a_reader_sees_old_or_new_and_never_a_mixture(self, backend: Backend) -> None:
        contents = [bytes([value]) * 50_000 for value in range(10)]
        write(backend, 'file', contents[0])
        done = threading.Event()
        seen: list[bytes] = []

        def look() -> None:
            while not done.is_set():
                try:
                    seen.append(backend.read_range('file', 0, 50_000, None))
                except (StorageNotFoundError, StorageConflictError, StorageUnavailableError):
                    if backend.capabilities.atomic_replace:
                        raise

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            try:
                for data in contents:
                    write(backend, 'file', data)
            finally:
                done.set()
            looking.result()
        assert {data in contents for data in seen} == {True}
        order = [contents.index(data) for data in seen]
        assert all(earlier <= later for earlier, later in pairwise(order))

    def test_many_files_can_be_put_at_once(self, backend: Backend) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: write(backend, f'd/e/{number}', b'x' * number), range(40)))
        sizes = {entry.name: entry.size_bytes for entry in backend.list_directory('d/e')}
        assert sizes == {str(number): number for number in range(40)}

    def test_no_file_is_placed_at_the_root(self, backend: Backend) -> None:
        with pytest.raises(StorageIsADirectoryError):
            backend.put('', BytesSource(b'1'), placed=True)

    @pytest.mark.parametrize('path', ['', 'd', 'd/e'])
    def test_a_file_never_replaces_a_directory(self, backend: Backend, path: str) -> None:
        write(backend, 'd/e/file', b'1')
        with pytest.raises(StorageIsADirectoryError):
            write(backend, path, b'2')
        assert read(backend, 'd/e/file') == b'1'

    @pytest.mark.parametrize('path', ['file/below', 'file/far/below'])
    def test_nothing_goes_below_a_file(self, backend: Backend, path: str) -> None:
        write(backend, 'file', b'1')
        with pytest.raises(StorageNotADirectoryError):
            write(backend, path, b'2')
        assert read(backend, 'file') == b'1'

    @pytest.mark.parametrize('name', NAMES)
    def test_any_name_goes_there_and_back(self, backend: Backend, name: str) -> None:
        entry = write(backend, f'd/{name}', b'content')
        assert entry.name == name
        assert names(backend, 'd') == {name}
        assert read(backend, f'd/{name}') == b'content'
        backend.rename(f'd/{name}', 'd/renamed')
        backend.rename('d/renamed', f'd/{name}')
        backend.remove_file(f'd/{name}')
        assert names(backend, 'd') == set()

    def test_a_backslash_is_a_letter(self, backend: Backend) -> None:
        write(backend, 'back\\slash', b'1')
        assert names(backend) == {'back\\slash'}

    @pytest.mark.parametrize('name', NAMES)
    def test_directories_take_any_name_too(self, backend: Backend, name: str) -> None:
        backend.make_directory(name)
        write(backend, f'{name}/file', b'1')
        assert names(backend) == {name}
        assert names(backend, name) == {'file'}
        backend.remove_file(f'{name}/file')
        backend.remove_directory(name)
        assert names(backend) == set()

    def test_bytes_that_are_no_utf8_go_there_and_back_or_are_refused(self, backend: Backend) -> None:
        name = paths.decode(b'latin-\xe9')
        try:
            write(backend, name, b'1')
        except StoragePathError:
            assert names(backend) == set()
        else:
            assert names(backend) == {name}
            assert read(backend, name) == b'1'

    def test_times_are_kept_or_refused(self, backend: Backend) -> None:
        before = write(backend, 'file', b'1')
        moment_ns = 1_234_567_890_000_000_000
        if backend.capabilities.stores_mtime:
            backend.set_mtime('file', moment_ns)
            assert backend.stat('file').mtime_ns == moment_ns
        else:
            with pytest.raises(StorageUnsupportedError):
                backend.set_mtime('file', moment_ns)
            assert agree(backend, before, backend.stat('file'))
