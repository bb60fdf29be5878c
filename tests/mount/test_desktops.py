"""What desktops do unasked, through the kernel: names that cost a bucket nothing, and programs that read nothing."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_proxy import FaultProxy, fault_proxy
from tests.mount.mounted import Mounted, mounted, s3_definition
from tests.servers import S3Server

NOISE = ('.DS_Store', '._f', 'desktop.ini', 'Thumbs.db', '.directory', '.Trash-1000', '.Trash', '.fseventsd')
PROBES = ('.hidden', '.nomedia', '.metadata_never_index', 'autorun.inf', '.xdg-volume-info')


class Desktop:
    """A directory of a test's own, as mounts of each policy show it, and the requests that they make."""

    def __init__(self, tree: Mounted, proxy: FaultProxy, server: S3Server) -> None:
        self.tree = tree
        self.proxy = proxy
        self._server = server
        self._name = f'desktop-{uuid.uuid4().hex}'
        self.put('', b'')

    def stored(self) -> list[str]:
        """What the bucket has, but for markers."""
        keys = self._server.keys(self.tree.bucket, f'{self._name}/')
        return [key.removeprefix(f'{self._name}/') for key in keys if not key.endswith('/')]

    def put(self, key: str, data: bytes) -> None:
        self._server.put(self.tree.bucket, f'{self._name}/{key}', data)

    def sh(self, script: str, mount: str = 'kept') -> str:
        return self.tree.sh(script, cwd=self.tree.path(mount, self._name))

    def fails(self, script: str, mount: str = 'kept') -> str:
        return self.tree.fails('sh', '-euc', script, cwd=self.tree.path(mount, self._name))


@pytest.fixture(scope='module')
def counted(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[tuple[Mounted, FaultProxy]]:
    """A bucket mounted with each policy, behind something that counts."""
    folder = tmp_path_factory.mktemp('noise')
    bucket = s3_server.new_bucket()
    with fault_proxy(s3_server.endpoint_url) as proxy:
        definitions = [
            {**s3_definition(s3_server, bucket, name), 'endpoint_url': proxy.url, **more}
            for name, more in (('kept', {}), ('refused', {'noise': 'refuse'}), ('allowed', {'noise': 'allow'}))
        ]
        with mounted(folder, definitions) as tree:
            tree.bucket = bucket
            yield tree, proxy


@pytest.fixture
def desktop(counted: tuple[Mounted, FaultProxy], s3_server: S3Server) -> Desktop:
    return Desktop(*counted, s3_server)


@pytest.mark.parametrize('mount', ['kept', 'refused'])
def test_noise_is_looked_for_without_a_request(desktop: Desktop, mount: str) -> None:
    directories = [f'{mount}-{number}' for number in range(5)]
    for directory in directories:
        desktop.put(f'{directory}/f', b'1')
        desktop.sh(f'test -d {directory}', mount)
    before = desktop.proxy.asked()
    looks = [f'test ! -e {directory}/{name}' for directory in directories for name in NOISE]
    desktop.sh('\n'.join(looks), mount)
    assert desktop.proxy.asked() == before


def test_probes_and_a_listing_cost_the_listing(desktop: Desktop) -> None:
    costs = []
    for probes in ([], PROBES):
        directory = f'probed-{len(probes)}'
        desktop.put(f'{directory}/f', b'1')
        desktop.sh(f'test -d {directory}')
        before = desktop.proxy.asked()
        desktop.sh('\n'.join([*(f'test ! -e {directory}/{name}' for name in probes), f'ls {directory}']))
        costs.append(desktop.proxy.asked() - before)
    assert costs[0] == costs[1]


def test_litter_is_kept_here_and_bins_are_refused(desktop: Desktop) -> None:
    desktop.put('d/f', b'1')
    desktop.sh('printf Bud1 > d/.DS_Store; printf half > d/._f; printf x >> d/._f; mv d/._f d/._g')
    assert desktop.sh('ls -A d').split() == ['.DS_Store', '._g', 'f']
    assert desktop.sh('cat d/.DS_Store d/._g; stat -c %s d/._g') == 'Bud1halfx5\n'
    assert 'Permission denied' in desktop.fails('mkdir d/.Trash-1000')
    assert desktop.stored() == ['d/f']
    desktop.sh('mv d e; cat e/._g; rm -r e')
    assert desktop.stored() == []


def test_a_tree_with_litter_is_copied_with_and_without_rsync(desktop: Desktop, tmp_path: Path) -> None:
    (tmp_path / 'tree').mkdir()
    for name in ('f', '._f', '.DS_Store', 'desktop.ini'):
        (tmp_path / 'tree' / name).write_text(name)
    desktop.sh(f'cp -a {tmp_path}/tree copied; rsync -a {tmp_path}/tree/ synced')
    for directory in ('copied', 'synced'):
        assert desktop.sh(f'cat {directory}/._f {directory}/desktop.ini') == '._fdesktop.ini'
    assert desktop.stored() == ['copied/f', 'synced/f']


def test_what_a_bucket_has_of_it_is_not_shown_and_goes_with_its_directory(desktop: Desktop) -> None:
    for name in ('f', '.DS_Store', '._f'):
        desktop.put(f'd/{name}', b'theirs')
    assert desktop.sh('ls -A d') == 'f\n'
    assert desktop.sh('ls -A d', 'allowed').split() == ['.DS_Store', '._f', 'f']
    desktop.sh('rm d/f; rmdir d')
    assert desktop.stored() == []
    assert 'No such file' in desktop.fails('ls d')


def test_a_mount_that_refuses_keeps_nothing(desktop: Desktop) -> None:
    for name in NOISE:
        assert 'Permission denied' in desktop.fails(f'echo 1 > {name}', 'refused')
    assert desktop.sh('ls -A', 'refused') == ''
    assert desktop.stored() == []


def test_a_mount_that_allows_it_stores_everything(desktop: Desktop) -> None:
    desktop.sh('echo 1 > .DS_Store; mkdir .Trash-1000; echo 1 > .Trash-1000/f', 'allowed')
    assert {'.DS_Store', '.Trash-1000/f'} <= set(desktop.stored())


def test_an_indexer_can_look_and_neither_list_nor_read(desktop: Desktop, tmp_path: Path) -> None:
    desktop.put('d/f', b'secret')
    extractor, miner = tmp_path / 'tracker-extract-3', tmp_path / 'tracker-miner-fs-3'
    shutil.copy(shutil.which('cat') or '', extractor)
    shutil.copy(shutil.which('ls') or '', miner)
    assert 'Permission denied' in desktop.fails(f'{extractor} d/f')
    assert 'Permission denied' in desktop.fails(f'{miner} d')
    desktop.sh(f'{miner} -d d/f; cat d/f')
    assert desktop.sh(f'{extractor} d/f; {miner} d', 'allowed') == 'secretf\n'
