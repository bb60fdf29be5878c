"""Google's and Azure's stores through the mount: what programs do arrives on the server, and what is there is shown.

S3 has the whole of the other tests; what a backend means is tested beside it (tests/contract).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.azure_server import running_azure_server
from tests.gcs_server import running_gcs_server
from tests.mount.mounted import Mounted, mounted

DRIVERS = ['obstore', 'fsspec']


class Cloud:
    """A server with an empty place, what a definition says of it, and its bytes past the library under test."""

    def __init__(self, definition: dict[str, Any], get: Callable[[str], bytes], keys: Callable[[], list[str]]) -> None:
        self.definition = definition
        self.get = get
        self.list_keys = keys


@contextmanager
def gcs(folder: Path) -> Iterator[Cloud]:
    with running_gcs_server(folder) as server:
        bucket = server.new_bucket()
        definition = {'type': 'gcs', 'bucket': bucket, 'endpoint_url': server.endpoint_url, 'anon': True}
        yield Cloud(definition, lambda key: server.get(bucket, key), lambda: server.keys(bucket))


@contextmanager
def azure(folder: Path) -> Iterator[Cloud]:
    with running_azure_server(folder) as server:
        container = server.new_container()
        definition = {
            'type': 'azure',
            'container': container,
            'endpoint_url': server.endpoint_url,
            'account_name': server.account_name,
            'account_key': server.account_key,
        }
        yield Cloud(definition, lambda key: server.get(container, key), lambda: server.keys(container))


@pytest.fixture(scope='module', params=[gcs, azure], ids=['gcs', 'azure'])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with request.param(tmp_path_factory.mktemp('cloud')) as made:
        yield made


@pytest.fixture(scope='module')
def tree(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    mounts = [{**cloud.definition, 'name': driver, 'driver': driver, 'prefix': driver} for driver in DRIVERS]
    mounts += [{**cloud.definition, 'name': f'{driver}-again', 'prefix': driver, 'ttl': 0} for driver in DRIVERS]
    with mounted(tmp_path_factory.mktemp('mounted'), mounts) as made:
        yield made


@pytest.fixture(params=DRIVERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_programs_write_is_on_the_server(tree: Mounted, cloud: Cloud, name: str) -> None:
    tree.sh(f'mkdir -p {name}/w/d; echo one > {name}/w/d/a; echo two >> {name}/w/d/a; seq 500000 > {name}/w/large')
    assert cloud.get(f'{name}/w/d/a') == b'one\ntwo\n'
    assert cloud.get(f'{name}/w/large') == b''.join(b'%d\n' % number for number in range(1, 500_001))
    assert tree.sh(f'cd {name}-again/w; find . -type f | sort; cat d/a; tail -1 large') == (
        './d/a\n./large\none\ntwo\n500000\n'
    )


def test_names_come_and_go(tree: Mounted, cloud: Cloud, name: str) -> None:
    tree.sh(
        f'mkdir {name}/n; cd {name}/n; echo 1 > a; cp a b; mv a c; mkdir empty; mv b empty/d; rm c; rmdir ../n || :'
    )
    assert [key for key in cloud.list_keys() if key.startswith(f'{name}/n/') and not key.endswith('/')] == [
        f'{name}/n/empty/d'
    ]
    assert tree.sh(f'cd {name}-again/n; ls -A . empty') == '.:\nempty\n\nempty:\nd\n'


def test_times_that_were_set_stay(tree: Mounted, name: str) -> None:
    tree.sh(f'mkdir {name}/t; cd {name}/t; echo x > f; touch -d @1600000000.25 f')
    assert tree.sh(f'stat -c %.2Y {name}/t/f {name}-again/t/f') == '1600000000.25\n' * 2


def test_what_somebody_else_has_overwritten_is_kept_beside_what_was_written(tree: Mounted, name: str) -> None:
    tree.sh(f'mkdir {name}/o; echo first > {name}/o/f')
    overwrite = f'echo theirs > {name}-again/o/f'
    tree.fails('sh', '-euc', f'exec 3>>{name}/o/f; echo mine >&3; {overwrite}; echo more >&3; exec 3>&-; false')
    (kept,) = (line for line in tree.sh(f'ls {name}-again/o').split() if '.conflict-' in line)
    assert tree.sh(f'cat {name}-again/o/f {name}-again/o/{kept}') == 'theirs\nfirst\nmine\nmore\n'
