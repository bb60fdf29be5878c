"""Text to paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_storage import paths
from genro_storage.errors import StorageNameTooLongError, StoragePathError


@pytest.mark.parametrize(
    ('parts', 'joined'),
    [
        ((), ''),
        (('',), ''),
        (('/',), ''),
        (('.', './.'), ''),
        (('a',), 'a'),
        (('/a//b/',), 'a/b'),
        (('a', '/b/', 'c'), 'a/b/c'),
        (('a/./b', '.', 'c'), 'a/b/c'),
        (('..a', 'b..', '...'), '..a/b../...'),
        ((' a ', '\n'), ' a /\n'),
    ],
)
def test_join_normalises(parts: tuple[str, ...], joined: str) -> None:
    assert paths.join(*parts) == joined


@pytest.mark.parametrize('path', ['..', '/..', 'a/..', '../a', 'a/../b', 'a//..//b', '\0', 'a/b\0c'])
def test_join_refuses_what_leaves_a_mount_and_nul(path: str) -> None:
    for parts in ((path,), ('a', path), (path, 'a')):
        with pytest.raises(StoragePathError):
            paths.join(*parts)


@pytest.mark.parametrize(
    ('name', 'fits'),
    [('n' * 255, True), ('n' * 256, False), ('é' * 127 + 'n', True), ('é' * 128, False), ('🎉' * 64, False)],
)
def test_a_name_has_at_most_255_bytes(name: str, fits: bool) -> None:
    assert paths.is_expressible(name) is fits
    if fits:
        assert paths.join('a', name) == f'a/{name}'
    else:
        with pytest.raises(StorageNameTooLongError):
            paths.join('a', name)


def test_a_path_has_at_most_4095_bytes() -> None:
    assert len(paths.join('a/' * 2048)) == 4095
    with pytest.raises(StorageNameTooLongError):
        paths.join('a/' * 2047, 'bb')
    with pytest.raises(StorageNameTooLongError):
        paths.join('é/' * 1400)


@pytest.mark.parametrize(
    ('text', 'parts', 'parsed'),
    [
        ('m', (), ('m', '')),
        ('m:', (), ('m', '')),
        ('m:a/b', ('c',), ('m', 'a/b/c')),
        ('m', ('a:b',), ('m', 'a:b')),
        ('m:a:b', (), ('m', 'a:b')),
    ],
)
def test_parse(text: str, parts: tuple[str, ...], parsed: tuple[str, str]) -> None:
    assert paths.parse(text, *parts) == parsed


@pytest.mark.parametrize('text', ['', ':', ':a'])
def test_parse_wants_a_mount(text: str) -> None:
    with pytest.raises(StoragePathError, match='mount'):
        paths.parse(text)


@pytest.mark.parametrize(
    ('path', 'parent', 'basename'), [('', '', ''), ('a', '', 'a'), ('a/b', 'a', 'b'), ('a/b/c', 'a/b', 'c')]
)
def test_parts_of_a_path(path: str, parent: str, basename: str) -> None:
    assert paths.parent(path) == parent
    assert paths.basename(path) == basename
    assert paths.child(parent, basename) == path or not path


@pytest.mark.parametrize(
    ('path', 'directory', 'within'),
    [
        ('', '', True),
        ('a', '', True),
        ('a', 'a', True),
        ('a/b', 'a', True),
        ('ab', 'a', False),
        ('a', 'a/b', False),
        ('', 'a', False),
    ],
)
def test_is_within(path: str, directory: str, within: bool) -> None:
    assert paths.is_within(path, directory) is within


@pytest.mark.parametrize('name', ['', '.', '..', 'a/b', 'a\0'])
def test_names_that_no_path_can_express(name: str) -> None:
    assert not paths.is_expressible(name)


@given(st.binary())
def test_every_sequence_of_bytes_survives(raw: bytes) -> None:
    assert paths.encode(paths.decode(raw)) == raw


@given(st.lists(st.text(st.characters(exclude_categories=['Cs']) | st.sampled_from('/.'))))
def test_what_join_lets_through_is_normalised_and_stays_so(parts: list[str]) -> None:
    try:
        path = paths.join(*parts)
    except StoragePathError:
        return
    assert paths.join(path) == path
    assert all(paths.is_expressible(name) for name in path.split('/') if path)
