"""Copies and moves: what happens when something fails or changes on the way."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from genro_storage import copying
from genro_storage.copying import Place
from genro_storage.errors import (
    StorageConflictError,
    StorageIOError,
    StorageNotEmptyError,
    StorageUnsupportedError,
)
from tests.unit.volumes import WAIT_S, Remote

BROKEN = StorageIOError('broken')


@pytest.fixture
def remotes(tmp_path: Path) -> Iterator[tuple[Remote, Remote]]:
    one, two = Remote(tmp_path / 'one'), Remote(tmp_path / 'two')
    for path in ('d/a', 'd/b', 'd/sub/c'):
        one.put(path, path.encode())
    yield one, two
    for remote in (one, two):
        remote.backend.heal()
        assert remote.volume.close(WAIT_S)


@pytest.fixture
def one(remotes: tuple[Remote, Remote]) -> Remote:
    return remotes[0]


@pytest.fixture
def two(remotes: tuple[Remote, Remote]) -> Remote:
    return remotes[1]


def everything(remote: Remote, path: str = '') -> dict[str, bytes]:
    found = {}
    for entry in remote.store.list_directory(path):
        inner = f'{path}/{entry.name}' if path else entry.name
        found |= everything(remote, inner) if entry.is_directory else {inner: remote.content(inner)}
    return found


TREE = {path: path.encode() for path in ('d/a', 'd/b', 'd/sub/c')}


@pytest.mark.parametrize('method', ['put', 'make_directory', 'stat'])
@pytest.mark.parametrize('nth', [1, 2, 3])
def test_a_move_that_fails_while_it_copies_removes_nothing(one: Remote, two: Remote, method: str, nth: int) -> None:
    two.backend.fail(method, BROKEN, nth=nth)
    try:
        copying.move(Place(one.volume, 'd'), Place(two.volume, 'd'))
    except StorageIOError:
        assert everything(one) == TREE
    else:
        assert nth > 1
        assert everything(two) == TREE


@pytest.mark.parametrize('nth', range(1, 9))
@pytest.mark.parametrize('after', [False, True])
def test_a_move_that_fails_while_it_removes_has_all_of_it_somewhere(
    one: Remote, two: Remote, nth: int, after: bool
) -> None:
    one.backend.fail('remove_file', BROKEN, nth=nth, after=after)
    with suppress(StorageIOError):
        copying.move(Place(one.volume, 'd'), Place(two.volume, 'd'))
    assert everything(two) == TREE


def test_what_appears_in_a_source_while_it_is_moved_stays(one: Remote, two: Remote) -> None:
    real = two.backend.inner.put

    def put(*args: object, **kwargs: object) -> object:
        one.put('d/late', b'precious')
        return real(*args, **kwargs)  # type: ignore[arg-type]

    two.backend.inner.put = put  # type: ignore[method-assign,assignment]
    with pytest.raises(StorageNotEmptyError):
        copying.move(Place(one.volume, 'd'), Place(two.volume, 'd'))
    assert one.content('d/late') == b'precious'
    assert everything(two) == TREE


def test_what_changes_in_a_source_while_it_is_moved_stays(one: Remote, two: Remote) -> None:
    real = two.backend.inner.put

    def put(*args: object, **kwargs: object) -> object:
        entry = real(*args, **kwargs)  # type: ignore[arg-type]
        one.put('d/a', b'precious')
        return entry

    two.backend.inner.put = put  # type: ignore[method-assign,assignment]
    with pytest.raises(StorageConflictError, match='m:d/a has changed meanwhile, and stays'):
        copying.move(Place(one.volume, 'd'), Place(two.volume, 'd'))
    assert one.content('d/a') == b'precious'


def test_a_merge_within_a_volume_removes_only_what_it_copied(one: Remote) -> None:
    one.put('target/d/a', b'old')
    one.put('target/d/x', b'stays')
    copying.move(Place(one.volume, 'd'), Place(one.volume, 'target'))
    assert everything(one) == {
        'target/d/a': b'd/a',
        'target/d/b': b'd/b',
        'target/d/sub/c': b'd/sub/c',
        'target/d/x': b'stays',
    }


def test_a_copy_that_fails_publishes_no_piece_of_a_file(one: Remote, two: Remote) -> None:
    one.put('large', bytes(9 << 20))
    one.backend.fail('read_range', BROKEN, nth=2)
    with pytest.raises(StorageIOError):
        copying.copy(Place(one.volume, 'large'), Place(two.volume, 'large'))
    assert two.names() == []
    assert two.kept() == []


def test_where_the_backend_cannot_copy_the_bytes_pass_through(one: Remote) -> None:
    one.backend.fail_always('copy', StorageUnsupportedError('no'))
    copying.copy(Place(one.volume, 'd'), Place(one.volume, 'e'))
    assert everything(one) == TREE | {path.replace('d', 'e', 1): data for path, data in TREE.items()}


def test_within_a_volume_no_byte_passes_through(one: Remote) -> None:
    copying.copy(Place(one.volume, 'd'), Place(one.volume, 'e'))
    copying.move(Place(one.volume, 'e'), Place(one.volume, 'f'))
    assert one.backend.calls('read_range') == one.backend.calls('put') == 0
    assert one.names() == ['d', 'f']


def test_a_large_file_is_copied_in_bounded_memory(one: Remote, two: Remote) -> None:
    import tracemalloc

    one.put('large', bytes(200 << 20))
    tracemalloc.start()
    try:
        copying.copy(Place(one.volume, 'large'), Place(two.volume, 'copied'))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert two.store.stat('copied').size_bytes == 200 << 20
    assert peak < 160 << 20  # 64 MiB of cache, and what is in flight


def test_a_file_that_is_being_written_is_copied_as_it_is_now(one: Remote, two: Remote) -> None:
    writer = one.volume.open_write('d/a', create=False)
    writer.truncate(0)
    writer.write(0, b'now')
    copying.copy(Place(one.volume, 'd'), Place(two.volume, 'd'))
    assert two.content('d/a') == b'now'
    assert one.content('d/a') == b'd/a'
    writer.close()


def test_deleting_goes_on_where_somebody_else_deletes_too(one: Remote) -> None:
    real = one.backend.inner.list_directory

    def list_and_lose(path: str) -> object:
        entries = real(path)
        if path == 'd':
            one.store.remove_file('d/a')
        return entries

    one.backend.inner.list_directory = list_and_lose  # type: ignore[method-assign,assignment]
    copying.delete(Place(one.volume, 'd'))
    assert one.names() == []


def test_a_failed_delete_is_said(one: Remote) -> None:
    one.backend.fail('remove_file', BROKEN, nth=2)
    with pytest.raises(StorageIOError):
        copying.delete(Place(one.volume, 'd'))
    copying.delete(Place(one.volume, 'd'))
    assert one.names() == []
