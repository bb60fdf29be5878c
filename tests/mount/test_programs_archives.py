"""Archives on the mounted tree: packed there, unpacked there, changed in place."""

from pathlib import Path

import pytest

from tests.mount.behind import fetched
from tests.mount.places import Place
from tests.mount.shortcomings import LISTED_TIMES
from tests.mount.test_programs import same_tree
from tests.mount.tools import need
from tests.servers import S3Server

on_both = pytest.mark.parametrize('place', ['bucket', 'local'], indirect=True)

TREE = """
import pathlib, random, sys
root, files = pathlib.Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(1)
for number in range(files):
    folder = root.joinpath('src', f'package{number % 7}', f'inner{number % 3}')
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(f'module_{number}.py').write_bytes(chance.randbytes(chance.choice([0, 7, 900, 20_000, 300_000])))
root.joinpath('Grüße & more.txt').write_text('named')
"""


@pytest.fixture
def source(tmp_path: Path, place: Place) -> Path:
    """A source tree of twenty files outside of the mount."""
    return make_tree(place, tmp_path / 'source', 20)


def make_tree(place: Place, root: Path, files: int) -> Path:
    place.tree.run('python3', '-c', TREE, root, str(files), cwd=root.parent)
    return root


@on_both
@pytest.mark.parametrize('compression', ['', 'z'])
def test_tar_packs_lists_and_unpacks(
    place: Place, s3_server: S3Server, tmp_path: Path, source: Path, compression: str
) -> None:
    place.sh(f'tar c{compression}f archive.tar -C {source} .; mkdir out; tar x{compression}f archive.tar -C out')
    same_tree(source, fetched(place, s3_server, tmp_path / 'outside') / 'out')
    place.sh(f'tar d{compression}f archive.tar -C out')  # compares contents, sizes, times and modes
    place.sh(f'tar c{compression}f again.tar -C out .; tar x{compression}f again.tar -C {tmp_path}')
    same_tree(source / 'src', tmp_path / 'src')
    if not compression:
        place.sh(f'tar rf archive.tar -C {source.parent} source/src/package1; tar uf archive.tar -C {source} src')
        place.sh('tar --delete -f archive.tar ./src; tar tf archive.tar | grep -q source/src/package1/inner')


@on_both
def test_tar_takes_a_snapshot_and_then_what_is_newer(place: Place, source: Path) -> None:
    place.sh(f'cp -a {source} source; tar cf full.tar -g snapshot source; sleep 0.01; echo new > source/new')
    assert place.sh('tar cvf more.tar -g snapshot source | grep -v /$').split() == ['source/new']


@on_both
def test_zip_packs_updates_and_unzip_reads_by_seeking(
    place: Place, s3_server: S3Server, tmp_path: Path, source: Path
) -> None:
    need('zip', 'unzip')
    place.sh(f'cp -r {source} source; zip -qr archive.zip source; unzip -tq archive.zip')
    place.sh('named="source/Grüße & more.txt"; echo changed > "$named"; touch -d "1 minute" "$named"')
    place.sh('zip -qur archive.zip source; zip -qd archive.zip "*_1.py"')
    place.sh('mkdir out; unzip -q archive.zip -d out; rm source/src/package1/inner1/module_1.py')
    place.sh('diff -r source out/source')
    outside = fetched(place, s3_server, tmp_path / 'outside')
    same_tree(outside / 'source', outside / 'out' / 'source')
    place.tree.run('unzip', '-tq', outside / 'archive.zip')
    assert place.sh('unzip -p archive.zip "*Gr*"') == 'changed\n'


@on_both
def test_gzip_split_and_cat_give_back_what_they_took(place: Place, tmp_path: Path) -> None:
    place.sh("""seq 200000 > numbers; sum=$(sha256sum < numbers)
    gzip numbers; zcat numbers.gz | sha256sum | grep -q "$sum"; gunzip numbers.gz
    split -b 100k numbers part.; cat part.* | sha256sum | grep -q "$sum"; rm part.*
    split -n l/3 numbers line.; cat line.* | cmp - numbers; rm line.*
    xz -0 -k numbers; xz -t numbers.xz; xzcat numbers.xz | cmp - numbers; rm numbers.xz
    """)
    assert place.stored('numbers') == b''.join(b'%d\n' % number for number in range(1, 200_001))
    assert place.names() == {'numbers'}


@pytest.mark.parametrize('place', [pytest.param('bucket', marks=LISTED_TIMES), 'local'], indirect=True)
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_large_source_tree_goes_there_and_back(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    source = make_tree(place, tmp_path / 'source', 1500)
    place.tree.sh(
        f'tar cf - -C {source} . | tar xf - ; tar cf - . | tar df - -C {source}', cwd=place.path, timeout_s=1000
    )
    same_tree(source, fetched(place, s3_server, tmp_path / 'outside'))
