"""include: other files of definitions: what is found, in which order, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from genro_storage.config import LocalDefinition, MemoryDefinition, Untrusted, load
from genro_storage.errors import StorageConfigError


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f'{name.replace("__", "/")}.yaml'
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)


def told(source: Any) -> list[str]:
    with pytest.raises(StorageConfigError) as caught:
        load(source)
    return str(caught.value).split('\n')


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_are_found_beside_the_one_that_includes_them_each_with_its_own_defaults(here: Path) -> None:
    write(
        here,
        storage='{include: conf/a.yaml, defaults: {ttl: 1m}, mounts: [{name: top, type: memory}]}',
        conf__a='{include: [b.yaml], defaults: {ttl: 2m}, mounts: [{name: a, type: local, path: data}]}',
        conf__b='[{name: b, type: memory}]',
    )
    configuration = load('storage.yaml')
    assert configuration.mounts == (
        MemoryDefinition(name='b'),
        LocalDefinition(name='a', path=str(here / 'conf' / 'data'), ttl_s=120.0),
        MemoryDefinition(name='top', ttl_s=60.0),
    )
    assert configuration.origins == {'top': 'storage.yaml', 'a': 'conf/a.yaml', 'b': 'conf/b.yaml'}
    assert configuration.reference('b') == str(here / 'storage.yaml')


def test_a_pattern_names_files_in_order_and_may_name_none(here: Path) -> None:
    write(here, storage="{include: ['conf.d/*.yaml', 'none.d/*.yaml']}")
    for name in 'bca':
        write(here, **{f'conf.d__{name}': f'[{{name: {name}, type: memory}}]'})
    assert [mount.name for mount in load('storage.yaml').mounts] == ['a', 'b', 'c']


def test_a_variable_may_be_part_of_a_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, storage="include: '${STAGE}.yaml'", dev='[{name: d, type: memory}]')
    monkeypatch.setenv('STAGE', 'dev')
    assert load('storage.yaml').mounts == (MemoryDefinition(name='d'),)
    monkeypatch.delenv('STAGE')
    assert "key 'include': '${STAGE}.yaml': the environment variable 'STAGE' is not set" in told('storage.yaml')[0]


def test_code_may_include_too_and_its_mounts_are_found_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, a='[{name: a, type: local, path: x}]')
    configuration = load({'include': ['a.yaml'], 'mounts': [{'name': 'm', 'type': 'memory'}]})
    monkeypatch.chdir('/')
    assert load(configuration.reference('a')).mounts[0] == configuration.mounts[0]


def test_a_circle_is_shown(here: Path) -> None:
    write(here, a='include: [b.yaml]', b='{include: [c.yaml], mounts: []}', c='include: [./a.yaml]')
    assert told('a.yaml') == [
        "c.yaml: line 1, column 11: key 'include': './a.yaml': includes itself: a.yaml → b.yaml → c.yaml → ./a.yaml"
    ]
    write(here, self='include: self.yaml')
    assert 'includes itself: self.yaml → self.yaml' in told('self.yaml')[0]


def test_a_file_counts_once(here: Path) -> None:
    write(here, a='include: [b.yaml, c.yaml]', b='include: [c.yaml]', c='[{name: c, type: memory}]')
    assert told('a.yaml') == [
        "a.yaml: line 1, column 19: key 'include': 'c.yaml': is included already; include it once"
    ]


def test_what_is_wrong_in_any_of_the_files_is_told_at_once_and_where(here: Path) -> None:
    write(
        here,
        a='include:\n- b.yaml\n- c.yaml\n- d.yaml\n- gone.yaml\nmounts:\n- {name: x, type: memory}\ncache: {}',
        b='- name: x\n  type: memory\n  tll: 1s\n',
        c='mounts: [',
        d='mounts: [{name: x, type: memory}]\ncache: {disk: 1GB}',
    )
    assert told('a.yaml') == [
        "c.yaml: line 1, column 10: while parsing a flow node, expected the node content, but found '<stream end>'",
        "a.yaml: line 5, column 3: key 'include': 'gone.yaml': no such file",
        "b.yaml: line 3, column 3: mount 'x': unknown key 'tll'; did you mean 'ttl'?",
        "a.yaml: line 7, column 10: mount 'x': defined twice, in d.yaml and in a.yaml",
        "a.yaml: line 8, column 1: key 'cache': d.yaml has one already",
    ]


@pytest.mark.parametrize('include', ['7', '[7]', "['']", '{a: b}', "''"])
def test_what_names_no_files_is_told(here: Path, include: str) -> None:
    write(here, a=f'{{include: {include}, mounts: []}}')
    assert told('a.yaml') == ["a.yaml: line 1, column 11: key 'include': expected a list of files"]


def test_a_file_is_not_trusted_less_than_the_one_that_includes_it(here: Path) -> None:
    write(here, a='include: [b.yaml]', b='[{name: b, type: memory}]')
    (here / 'b.yaml').chmod(0o620)
    assert 'others could have written it, so it is not trusted; chown and chmod go-w' in told('a.yaml')[0]
    (here / 'a.yaml').chmod(0o660)
    assert load('a.yaml').mounts
    (here / 'a.yaml').chmod(0o600)
    (here / 'b.yaml').chmod(0o600)
    assert load('a.yaml').mounts


def test_a_link_that_somebody_else_made_is_not_followed(here: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail('needs root, to make a file of another user')
    write(here, a='include: [b.yaml]', target='[{name: b, type: memory}]')
    (here / 'b.yaml').symlink_to('target.yaml')
    os.lchown(here / 'b.yaml', 12345, 12345)
    assert 'not trusted' in told('a.yaml')[0]


def test_an_untrusted_source_includes_nothing(here: Path) -> None:
    write(here, a='include: [b.yaml]', b='[{name: b, type: memory}]')
    (line,) = told(Untrusted('a.yaml'))
    assert line == (
        "a.yaml: line 1, column 10: key 'include': an untrusted source may not include files (privilege 'include')"
    )
    write(here, b='[{name: b, type: local, path: /x}]')
    (line,) = told(Untrusted('a.yaml', allow=['include']))
    assert line.startswith("b.yaml: line 1, column 31: mount 'b': key 'path': an untrusted source may not name a path")
