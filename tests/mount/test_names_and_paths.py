"""Names and paths at their limits: what Linux allows works, and one byte more is ENAMETOOLONG at once."""

import json
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fusefs.trees.volume import UNBOUNDED_BYTES
from tests.mount.mounted import Mounted, mounted, s3_definition
from tests.mount.places import Place
from tests.mount.stepping import Program, program
from tests.servers import S3Server

#: Letters of one to four bytes in UTF-8.
LETTERS = ['n', 'é', '日', '\U0001f600']
#: linux/limits.h; the first does not count the NUL, the second does.
NAME_MAX, PATH_MAX = 255, 4096

ODD = {
    'newline': 'new\nline',
    'carriage return': 'a\rb',
    'quotes': '"\'`$(id)',
    'leading dash': '-rf',
    'leading space': ' a',
    'trailing space': 'a ',
    'trailing dot': 'a.',
    'only dots': '...',
    'tilde': '~',
    'glob': '?*[a-z]',
    'percent': '%2e%2e',
    'plus': 'a+b',
    'colon': 'C:',
    'device of another system': 'NUL',
    'bidirectional': 'a\u202eb',
    'zero width': 'a\u200bb',
    'beyond the basic plane': '\U0001f9d1\u200d\U0001f680',
}


@pytest.fixture
def stepping(place: Place) -> Iterator[Program]:
    with program(place.path) as running:
        yield running


@pytest.fixture(params=['memory', 'local'])
def deep(everything: Mounted, s3_server: S3Server, request: pytest.FixtureRequest) -> Place:
    """A new directory where no store limits the length of a whole path."""
    return Place(everything, s3_server, request.param)


def write(stepping: Program, name: str | bytes, data: bytes) -> object:
    """Make a file; its name, or the errno."""
    return stepping.does(
        f'(fd := os.open({name!r}, os.O_WRONLY | os.O_CREAT | os.O_EXCL), os.write(fd, {data!r}), os.close(fd))[1]'
    )


def read(stepping: Program, name: str | bytes) -> object:
    return stepping.does(f'(fd := os.open({name!r}, os.O_RDONLY), os.read(fd, 100), os.close(fd))[1]')


def filled(letter: str, size_bytes: int) -> str:
    """A name of so many bytes, of one letter as far as it goes."""
    count, rest = divmod(size_bytes, len(letter.encode()))
    return letter * count + 'x' * rest


# Names


@pytest.mark.parametrize('letter', LETTERS)
def test_a_name_may_have_255_bytes_whatever_they_stand_for(place: Place, stepping: Program, letter: str) -> None:
    name = filled(letter, NAME_MAX)
    assert write(stepping, name, b'content') == 7
    assert stepping.does('os.listdir()') == [name]
    assert read(stepping, name) == b'content'
    assert place.names() == {name}
    other = filled(letter, NAME_MAX - 1)
    assert stepping.does(f'os.rename({name!r}, {other!r})') is None
    assert stepping.does(f'os.mkdir({name!r})') is None
    assert sorted(stepping.does('os.listdir()')) == sorted([name, other])
    assert stepping.does(f'(os.unlink({other!r}), os.rmdir({name!r}), os.listdir())[2]') == []


@pytest.mark.parametrize('letter', LETTERS)
def test_a_name_of_256_bytes_is_too_long_for_whatever_takes_one(stepping: Program, letter: str) -> None:
    name = filled(letter, NAME_MAX + 1)
    assert len(name.encode()) == NAME_MAX + 1
    write(stepping, 'f', b'f')
    for expression in (
        f'os.stat({name!r})',
        f'os.open({name!r}, os.O_RDONLY)',
        f'os.open({name!r}, os.O_WRONLY | os.O_CREAT)',
        f'os.mkdir({name!r})',
        f'os.unlink({name!r})',
        f'os.rmdir({name!r})',
        f'os.rename("f", {name!r})',
        f'os.rename({name!r}, "f")',
        f'os.symlink("f", {name!r})',
        f'os.link("f", {name!r})',
        f'os.mkdir({name!r} + "/d")',
    ):
        assert stepping.does(expression) == 'ENAMETOOLONG', expression
    assert stepping.does('os.listdir()') == ['f']


def test_case_is_kept_and_makes_another_name(place: Place, stepping: Program) -> None:
    names = ['readme', 'README', 'ReadMe', 'straße', 'STRASSE', 'ı', 'I', 'i', 'İ']
    for name in names:
        assert write(stepping, name, name.encode()) == len(name.encode())
    assert sorted(stepping.does('os.listdir()')) == sorted(names)
    assert [read(stepping, name) for name in names] == [name.encode() for name in names]
    assert place.names() == set(names)
    assert stepping.does('os.rename("readme", "Readme")') is None
    assert sorted(stepping.does('os.listdir()')) == sorted(['Readme', *names[1:]])


@pytest.mark.parametrize('name', ['Ångström', 'é', 'ﬁ', '한글', '\u2126'])
def test_forms_of_one_text_are_different_names(stepping: Program, name: str) -> None:
    forms = {unicodedata.normalize(form, name) for form in ('NFC', 'NFD', 'NFKC', 'NFKD')} | {name}
    assert len(forms) > 1
    for form in forms:
        assert write(stepping, form, form.encode()) == len(form.encode())
    assert sorted(stepping.does('os.listdir()')) == sorted(forms)
    assert {read(stepping, form) for form in forms} == {form.encode() for form in forms}


@pytest.mark.parametrize('name', ODD.values(), ids=list(ODD))
def test_an_odd_name_is_a_name(place: Place, stepping: Program, name: str) -> None:
    assert write(stepping, name, b'content') == 7
    assert stepping.does('os.listdir()') == [name]
    assert read(stepping, name) == b'content'
    assert place.stored(name) == b'content'
    assert stepping.does(f'(os.mkdir("d"), os.rename({name!r}, "d/" + {name!r}), os.listdir("d"))[2]') == [name]
    assert stepping.does(f'(os.unlink("d/" + {name!r}), os.rmdir("d"), os.mkdir({name!r}), os.listdir())[3]') == [name]
    assert stepping.does(f'(os.rmdir({name!r}), os.listdir())[1]') == []


@pytest.mark.parametrize('name', [b'\xff' * NAME_MAX, b'caf\xe9', b'\xed\xa0\x80', b'\xc0\x80', bytes(range(1, 47))])
def test_bytes_that_are_no_text_are_a_name_on_a_disk(local: Place, name: bytes) -> None:
    with program(local.path) as stepping:
        assert write(stepping, name, b'content') == 7
        assert stepping.does('os.listdir(b".")') == [name]
        assert os.listdir(os.fsencode(local.tree.folder / local.name)) == [name]
        assert read(stepping, name) == b'content'
        assert stepping.does(f'(os.rename({name!r}, {name[:-1]!r}), os.listdir(b"."))[1]') == [name[:-1]]


# Paths


#: Components of 200 bytes: so a path has about twenty.
COMPONENT = 'd' * 200


def make_deep(stepping: Program, depth: int) -> None:
    """Make directories below each other, each from inside the one above, so that no path is long."""
    script = f'for _ in range({depth}): os.mkdir({COMPONENT!r}); os.chdir({COMPONENT!r})'
    stepping.does(f'exec({script!r})', timeout_s=60)


def test_a_path_may_have_4095_bytes_and_not_one_more(deep: Place) -> None:
    with program(deep.path) as stepping:
        make_deep(stepping, 19)
        prefix = f'{deep.path}/' + f'{COMPONENT}/' * 19
        longest = prefix + 'f' * (PATH_MAX - 1 - len(prefix.encode()))
        assert len(longest.encode()) == PATH_MAX - 1
        assert write(stepping, longest, b'content') == 7
        assert read(stepping, longest) == b'content'
        assert stepping.does(f'os.stat({longest!r}).st_size') == 7
        for expression in (f'os.stat({longest + "f"!r})', f'os.open({longest + "f"!r}, os.O_WRONLY | os.O_CREAT)'):
            assert stepping.does(expression) == 'ENAMETOOLONG'


def test_a_tree_may_be_deeper_than_a_path_is_long(deep: Place) -> None:
    with program(deep.path) as stepping:
        make_deep(stepping, 40)  # twice PATH_MAX
        assert write(stepping, 'f', b'content') == 7
        assert read(stepping, 'f') == b'content'
        assert stepping.does('(os.rename("f", "g"), os.stat("g").st_size, os.listdir())[1:]') == (7, ['g'])
        stepping.does('(os.mkdir("d"), os.rename("g", "d/g"), os.unlink("d/g"), os.rmdir("d"))')
        assert stepping.does('os.listdir()') == []
        assert stepping.does('(os.chdir("../.."), os.listdir())[1]') == [COMPONENT]
        found = deep.tree.run('find', '.', '-type', 'd', '-printf', 'x', cwd=deep.path)
        assert len(found) == 41
        deep.tree.run('rm', '-r', COMPONENT, cwd=deep.path)
        assert deep.tree.run('ls', cwd=deep.path) == ''


# Room


def test_a_local_mount_tells_the_room_of_its_disk(local: Place) -> None:
    with program(local.path) as stepping:
        shown = os.statvfs_result(stepping.does('tuple(os.statvfs("."))'))
    disk = os.statvfs(local.tree.folder)
    for field in ('f_frsize', 'f_blocks', 'f_files', 'f_namemax'):
        assert getattr(shown, field) == getattr(disk, field), field
    # Others write to it too.
    assert abs(shown.f_bavail - disk.f_bavail) < disk.f_blocks / 20
    assert shown.f_bavail <= shown.f_bfree <= shown.f_blocks


def test_a_memory_mount_tells_the_memory_of_the_machine(everything: Mounted, s3_server: S3Server) -> None:
    with program(Place(everything, s3_server, 'memory').path) as stepping:
        shown = os.statvfs_result(stepping.does('tuple(os.statvfs("."))'))
    memory_bytes = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    assert abs(shown.f_blocks * shown.f_frsize - memory_bytes) < memory_bytes / 100
    assert 0 < shown.f_bavail <= shown.f_bfree <= shown.f_blocks


def test_a_name_of_256_bytes_is_too_long_in_the_root_of_the_tree_too(everything: Mounted) -> None:
    with program(everything.mountpoint) as stepping:
        assert stepping.does(f'os.stat({"x" * (NAME_MAX + 1)!r})') == 'ENAMETOOLONG'
        assert stepping.does(f'os.stat({"x" * NAME_MAX!r})') == 'ENOENT'


def test_a_bucket_without_bounds_has_room_for_all_who_ask(everything: Mounted, s3_server: S3Server) -> None:
    place = Place(everything, s3_server, 'bucket')
    with program(place.path) as stepping:
        shown = os.statvfs_result(stepping.does('tuple(os.statvfs("."))'))
    assert shown.f_bavail == shown.f_bfree == shown.f_blocks
    assert shown.f_blocks * shown.f_frsize == UNBOUNDED_BYTES
    assert shown.f_namemax == NAME_MAX
    assert place.tree.run('df', '--output=used', place.path).split() == ['Used', '0']


# A bucket, by each driver


#: Of keys on S3 (user guide, "Naming Amazon S3 objects"); that of a directory ends with a slash.
KEY_MAX = 1024


@pytest.fixture(scope='module')
def buckets(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Mounted]:
    """A tree of two mounts of one bucket, 'obstore' and 'fsspec' by their drivers."""
    bucket = s3_server.new_bucket()
    definitions = [s3_definition(s3_server, bucket, name=name, driver=name) for name in ('obstore', 'fsspec')]
    with mounted(tmp_path_factory.mktemp('buckets'), definitions) as tree:
        tree.bucket = bucket
        yield tree


@pytest.fixture(params=['obstore', 'fsspec'])
def driver(buckets: Mounted, request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_key_may_have_1024_bytes_and_one_more_is_enametoolong(
    buckets: Mounted, s3_server: S3Server, driver: str
) -> None:
    with program(buckets.path(driver)) as stepping:
        assert stepping.does(f'(os.mkdir("k-{driver}"), os.chdir("k-{driver}"))[1]') is None
        make_deep(stepping, 4)
        room = KEY_MAX - len(f'k-{driver}/') - 4 * (len(COMPONENT) + 1)
        assert write(stepping, 'f' * room, b'content') == 7
        assert read(stepping, 'f' * room) == b'content'
        assert max(map(len, s3_server.keys(buckets.bucket, f'k-{driver}/'))) == KEY_MAX
        assert stepping.does(f'os.mkdir({"d" * (room - 1)!r})') is None
        too_long = 'f' * (room + 1)
        assert write(stepping, too_long, b'content') == 'ENAMETOOLONG'
        for expression in (
            f'os.mkdir({"m" * room!r})',
            f'os.rename({"f" * room!r}, {too_long!r})',
            f'os.rename("../../../../{COMPONENT}", "../../../../{COMPONENT}d")',
        ):
            assert stepping.does(expression) == 'ENAMETOOLONG', expression
        assert sorted(stepping.does('os.listdir()')) == ['d' * (room - 1), 'f' * room]
        assert read(stepping, 'f' * room) == b'content'


def test_directories_last_while_they_are_empty(buckets: Mounted, s3_server: S3Server, driver: str) -> None:
    buckets.sh(f'mkdir -p {driver}/e-{driver}/empty {driver}/e-{driver}/full; cd {driver}/e-{driver}; echo > full/f')
    assert f'e-{driver}/empty/' in s3_server.keys(buckets.bucket, f'e-{driver}/')
    buckets.sh(f'cd {driver}/e-{driver}; rm full/f; mkdir moved; echo > moved/f; mv moved/f f; rm f')
    # What is on the server is what a mount sees that has just begun.
    with mounted_again(buckets) as again:
        for name in ('empty', 'full', 'moved'):
            assert again.run('ls', '-A', again.path(driver, f'e-{driver}', name)) == ''
        again.run('rmdir', *(again.path(driver, f'e-{driver}', name) for name in ('empty', 'full', 'moved')))
        assert again.run('ls', '-A', again.path(driver, f'e-{driver}')) == ''


@contextmanager
def mounted_again(tree: Mounted) -> Iterator[Mounted]:
    """The same definitions by another process, which knows nothing yet."""
    folder = tree.mountpoint.parent / 'again'
    folder.mkdir(exist_ok=True)
    definitions = json.loads((tree.mountpoint.parent / f'{tree.mountpoint.name}.json').read_text())['mounts']
    with mounted(folder, definitions) as again:
        yield again
