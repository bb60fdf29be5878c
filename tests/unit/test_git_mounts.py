"""Git repositories as mounts: one of this machine, by git itself, and one behind a stub of GitHub's API."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_storage import StorageManager
from genro_storage.config import definition_from_mapping
from genro_storage.errors import (
    StorageConfigError,
    StorageError,
    StoragePermissionError,
    StorageReadOnlyError,
    StorageThrottledError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from tests.archives import MTIME_S, GitFolder, zip_of
from tests.github_stub import GithubStub

HUB = {'type': 'github', 'org': 'someone', 'repo': 'something'}


@pytest.fixture
def repository(tmp_path: Path) -> GitFolder:
    folder = GitFolder(tmp_path / 'repository')
    folder.write({'a': b'one', 'd/b': b'two', '.gitignore': b'ignored\n'})
    folder.commit()
    return folder


@pytest.fixture
def stub(repository: GitFolder) -> Iterator[GithubStub]:
    with GithubStub(repository, 'someone', 'something').running() as stub:
        yield stub


def mounted(**keys: Any) -> StorageManager:
    storage = StorageManager()
    storage.add_mount({'name': 'm', 'ttl': 0, 'cache': 'memory', **keys})
    return storage


def on_github(stub: GithubStub, **keys: Any) -> StorageManager:
    return mounted(**HUB, endpoint_url=stub.url, **keys)


@pytest.fixture(params=['git', 'github'])
def storage(repository: GitFolder, stub: GithubStub, request: pytest.FixtureRequest) -> StorageManager:
    """Of either type, on the branch main."""
    if request.param == 'github':
        return on_github(stub, ref='main')
    return mounted(type='git', path=str(repository.folder), ref='main')


class TestBoth:
    def test_a_new_commit_of_the_branch_is_seen(self, storage: StorageManager, repository: GitFolder) -> None:
        assert storage.node('m:a').read_bytes() == b'one'
        repository.write({'a': b'other', 'new': b'three'})
        repository.commit()
        assert storage.node('m:a').read_bytes() == b'other'
        assert [node.basename for node in storage.node('m').children()] == ['.gitignore', 'a', 'd', 'new']

    def test_who_has_a_file_open_reads_it_to_its_end_whatever_becomes_of_the_branch(
        self, storage: StorageManager, repository: GitFolder
    ) -> None:
        with storage.node('m:a').open('rb') as file:
            repository.write({'a': b'other'})
            repository.commit()
            assert file.read() == b'one'

    def test_files_have_the_time_of_the_commit(self, storage: StorageManager) -> None:
        assert storage.node('m:a').mtime == MTIME_S
        assert storage.node('m:d').mtime == MTIME_S

    def test_links_are_followed_to_files_of_the_commit_and_nowhere_else(
        self, storage: StorageManager, repository: GitFolder
    ) -> None:
        links = {'good': 'd/b', 'd/up': '../a', 'out': '../../etc/passwd', 'folder': 'd', 'circle': 'circle'}
        for name, target in links.items():
            (repository.folder / name).symlink_to(target)
        repository.commit()
        assert storage.node('m:good').read_bytes() == b'two'
        assert storage.node('m:d/up').read_bytes() == b'one'
        for name in ('out', 'folder', 'circle'):
            assert not storage.node(f'm:{name}').isfile
            with pytest.raises(StorageError):
                storage.node(f'm:{name}').read_bytes()

    def test_a_submodule_is_an_empty_directory(self, storage: StorageManager, repository: GitFolder) -> None:
        commit = repository.git('rev-parse', 'HEAD')
        repository.git('update-index', '--add', '--cacheinfo', f'160000,{commit},sub')
        repository.git('commit', '--quiet', '--message', 'a submodule')
        assert storage.node('m:sub').isdir
        assert storage.node('m:sub').children() == []

    def test_nothing_can_be_written(self, storage: StorageManager) -> None:
        with pytest.raises(StorageReadOnlyError):
            storage.node('m:a').write_text('x')
        with pytest.raises(StorageReadOnlyError):
            storage.node('m:d').delete()


class TestGit:
    def test_any_ref_that_git_resolves(self, repository: GitFolder) -> None:
        first = repository.git('rev-parse', 'HEAD')
        repository.git('tag', 'light')
        repository.git('tag', '--annotate', '--message', 'text', 'annotated')
        repository.write({'a': b'changed'})
        second = repository.commit()
        repository.git('branch', 'feature/with-slash')
        of = {
            'light': b'one', 'annotated': b'one', first: b'one', first[:8]: b'one', 'HEAD~1': b'one',
            'HEAD': b'changed', 'main': b'changed', 'refs/heads/main': b'changed', second: b'changed',
            'feature/with-slash': b'changed',
        }  # fmt: skip
        for ref, content in of.items():
            with mounted(type='git', path=str(repository.folder), ref=ref) as storage:
                assert storage.node('m:a').read_bytes() == content, ref

    def test_what_is_not_committed_is_not_shown(self, repository: GitFolder) -> None:
        repository.write({'a': b'changed', 'untracked': b'x'})
        with mounted(type='git', path=str(repository.folder)) as storage:
            assert storage.node('m:a').read_bytes() == b'one'
            assert not storage.node('m:untracked').exists

    def test_a_bare_repository(self, repository: GitFolder, tmp_path: Path) -> None:
        repository.git('clone', '--quiet', '--bare', '.', str(tmp_path / 'bare.git'))
        with mounted(type='git', path=str(tmp_path / 'bare.git')) as storage:
            assert storage.node('m:d/b').read_bytes() == b'two'

    @pytest.mark.parametrize('ref', ['nothing', '0' * 40, 'HEAD:a', 'HEAD~99'])
    def test_a_ref_that_is_none_is_said_and_is_no_absence(self, repository: GitFolder, ref: str) -> None:
        with (
            mounted(type='git', path=str(repository.folder), ref=ref) as storage,
            pytest.raises(StorageConfigError, match=ref),
        ):
            _ = storage.node('m:a').exists

    def test_a_folder_that_is_no_repository_is_said(self, tmp_path: Path) -> None:
        (tmp_path / 'empty').mkdir()
        with (
            mounted(type='git', path=str(tmp_path / 'empty')) as storage,
            pytest.raises(StorageConfigError, match='no git repository'),
        ):
            storage.node('m').children()

    def test_a_missing_package_says_what_to_install(
        self, repository: GitFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, 'pygit2', None)
        with (
            mounted(type='git', path=str(repository.folder)) as storage,
            pytest.raises(StorageConfigError, match=r"pip install 'genro-storage\[git\]'"),
        ):
            storage.node('m').children()


class TestGithubStub:
    def test_without_a_ref_it_is_the_default_branch(self, stub: GithubStub) -> None:
        assert on_github(stub).node('m:a').read_bytes() == b'one'
        assert stub.requests[0][0] == '/repos/someone/something/commits/HEAD'

    def test_what_has_not_changed_is_asked_for_once(self, stub: GithubStub) -> None:
        storage = on_github(stub)
        for _ in range(3):
            storage.node('m:d/b').read_bytes()
        paths = [path for path, _ in stub.requests if '/commits/' not in path]
        assert len(paths) == len(set(paths)) == 3  # two trees, one blob

    def test_a_token_is_sent_and_shown_to_nobody(self, stub: GithubStub) -> None:
        stub.token = 'hunter2'
        keys = {'org': 'someone', 'repo': 'something', 'endpoint_url': stub.url, 'token': 'hunter2'}
        with on_github(stub, token='hunter2') as storage:
            assert storage.node('m:a').read_bytes() == b'one'
        assert {authorization for _, authorization in stub.requests} == {'Bearer hunter2'}
        definition = definition_from_mapping({'name': 'm', 'type': 'github', **keys})
        assert 'hunter2' not in repr(definition) + json.dumps(definition.shown())

    def test_a_token_from_the_environment_is_looked_up_late(
        self, stub: GithubStub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stub.token = 'hunter2'
        storage = on_github(stub, token='env:GENRO_TEST_TOKEN')
        monkeypatch.setenv('GENRO_TEST_TOKEN', 'hunter2')
        assert storage.node('m:a').read_bytes() == b'one'

    def test_a_wrong_token_is_not_permitted(self, stub: GithubStub) -> None:
        stub.token = 'hunter2'
        with pytest.raises(StoragePermissionError, match='token') as caught:
            on_github(stub, token='guessed').node('m:a').read_bytes()
        assert 'guessed' not in str(caught.value)

    @pytest.mark.parametrize('keys', [{'ref': 'nothing'}, {'repo': 'other'}, {'ref': '0' * 40}])
    def test_what_github_does_not_have_is_said_and_is_no_absence(self, stub: GithubStub, keys: dict[str, str]) -> None:
        storage = mounted(**{'type': 'github', 'org': 'someone', 'repo': 'something', 'endpoint_url': stub.url, **keys})
        with pytest.raises(StorageConfigError, match='GitHub'):
            _ = storage.node('m:a').exists

    def test_the_limit_of_requests_is_told_as_such(self, stub: GithubStub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr('genro_storage.backends.guarded.THROTTLED_TRIES', 1)
        stub.allowance = 0
        with pytest.raises(StorageThrottledError, match='no more requests'):
            on_github(stub).node('m:a').read_bytes()

    def test_a_server_that_fails_or_is_not_there_is_no_absence(
        self, stub: GithubStub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr('genro_storage.backends.guarded.TRIES', 1)
        stub.broken = 502
        with pytest.raises(StorageUnavailableError):
            _ = on_github(stub).node('m:a').exists
        gone = mounted(type='github', org='o', repo='r', endpoint_url='http://127.0.0.1:9')
        with pytest.raises((StorageUnavailableError, StorageTimeoutError)):
            _ = gone.node('m:a').exists

    def test_a_token_goes_to_no_other_host(self, stub: GithubStub, repository: GitFolder) -> None:
        with GithubStub(repository, 'someone', 'something').running() as other:
            stub.moved_to = other.url
            on_github(stub, token='hunter2').node('m:a').read_bytes()
            assert {authorization for _, authorization in stub.requests} == {'Bearer hunter2'}
            assert {authorization for _, authorization in other.requests} == {None}

    @pytest.mark.parametrize(
        'keys', [{'org': '../x'}, {'org': 'a/b'}, {'repo': '..'}, {'endpoint_url': 'ftp://host'}, {'repo': ''}]
    )
    def test_names_that_lead_elsewhere_are_refused(self, keys: dict[str, str]) -> None:
        with pytest.raises(StorageConfigError):
            definition_from_mapping({'name': 'm', 'type': 'github', 'org': 'o', 'repo': 'r', **keys})


def test_a_forked_child_reads_on(repository: GitFolder, stub: GithubStub, tmp_path: Path) -> None:
    """Also while a thread of its parent is reading, whose locks the child inherits."""
    (tmp_path / 'a.zip').write_bytes(zip_of({'a': b'1' * 3_000_000}))
    with StorageManager() as storage:
        storage.configure(
            [
                {'name': 'shelf', 'type': 'local', 'path': str(tmp_path)},
                {'name': 'zip', 'type': 'zip', 'file': 'part:a.zip', 'cache': 'memory'},
                {'name': 'part', 'type': 'relative', 'path': 'shelf:'},
                {'name': 'git', 'type': 'git', 'path': str(repository.folder), 'cache': 'memory'},
                {'name': 'hub', **HUB, 'endpoint_url': stub.url, 'cache': 'memory'},
            ]
        )

        def is_right() -> bool:
            return (
                storage.node('zip:a').read_bytes() == b'1' * 3_000_000
                and storage.node('git:d/b').read_bytes() == b'two'
                and storage.node('hub:d/b').read_bytes() == b'two'
            )

        assert is_right()
        backend: Any = storage.volume('zip').backend
        with backend._process.get().lock:
            child = os.fork()
            if not child:
                os._exit(0 if is_right() else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert is_right()
