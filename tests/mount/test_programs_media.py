"""Programs that seek in large files: ImageMagick in pictures, DuckDB and pyarrow in Parquet, and what they write."""

import shlex
import sys
from pathlib import Path

import pytest

from tests.mount.behind import elsewhere, fetched
from tests.mount.mounted import run
from tests.mount.places import Place
from tests.mount.tools import need
from tests.servers import S3Server

pytestmark = pytest.mark.parametrize('place', ['bucket', 'local'], indirect=True)

ROWS = 200_000
WRITE_PARQUET = f"""
import pyarrow as pa, pyarrow.parquet as parquet, sys
numbers = pa.array(range({ROWS}))
table = pa.table({{'number': numbers, 'text': pa.array([f'text {{n % 1000}} ' * 3 for n in range({ROWS})])}})
parquet.write_table(table, sys.argv[1], row_group_size=20_000, compression='none')
"""
READ_PARQUET = f"""
import pyarrow.compute as compute, pyarrow.dataset as dataset, pyarrow.parquet as parquet
file = parquet.ParquetFile('table.parquet')
assert file.metadata.num_row_groups == 10
group = file.read_row_group(7, columns=['number'])
assert group['number'][0].as_py() == 140_000 and group.num_rows == 20_000
mapped = parquet.read_table('table.parquet', memory_map=True, columns=['number'])
assert compute.sum(mapped['number']).as_py() == {ROWS * (ROWS - 1) // 2}
found = dataset.dataset('table.parquet').to_table(filter=compute.field('number') == 123_456)
assert found['text'][0].as_py().startswith('text 456 ')
"""
DUCKDB = """
import duckdb
base = duckdb.connect()
assert base.execute("select count(*), max(number) from 'table.parquet'").fetchone() == (200_000, 199_999)
base.execute("copy (select number, text from 'table.parquet' where number % 2 = 0) to 'even.parquet' (format parquet)")
base.execute("copy (select * from 'even.parquet' limit 10) to 'even.csv' (header)")
base.execute("copy (select *, number % 4 as part from 'even.parquet') to 'parts' (format parquet, partition_by (part))")
assert base.execute("select count(distinct part) from 'parts/*/*.parquet'").fetchone() == (2,)
"""
DUCKDB_FILE = """
import duckdb
for round in range(3):
    with duckdb.connect('base.duckdb') as base:
        base.execute('create table if not exists items (number bigint, text varchar)')
        base.execute("insert into items select range, 'text ' || range from range(20000)")
        base.execute('checkpoint')
        base.execute('update items set text = upper(text) where number % 3 = 0')
        base.execute('delete from items where number >= 10000')
"""


def python(place: Place, program: str, *arguments: str | Path) -> str:
    return place.tree.run(sys.executable, '-c', program, *arguments, cwd=place.path)


def outside(folder: Path, program: str) -> str:
    """What a Python program prints on what was fetched from behind the mount."""
    done = run(sys.executable, '-c', program, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_parquet_is_written_and_read_by_path(place: Place, tmp_path: Path, s3_server: S3Server) -> None:
    run(sys.executable, '-c', WRITE_PARQUET, tmp_path / 'table.parquet')
    python(place, WRITE_PARQUET, 'table.parquet')
    assert place.stored('table.parquet') == (tmp_path / 'table.parquet').read_bytes()
    python(place, READ_PARQUET)
    python(place, DUCKDB)
    folder = fetched(place, s3_server, tmp_path / 'outside')
    query = """
import duckdb
print(*duckdb.connect().execute("select count(*), sum(number) from 'even.parquet'").fetchone())
"""
    assert outside(folder, query) == f'100000 {sum(range(0, ROWS, 2))}\n'
    assert (folder / 'even.csv').read_text().splitlines()[10].startswith('18,')


def test_a_column_is_read_of_what_somebody_else_stored(place: Place, tmp_path: Path, s3_server: S3Server) -> None:
    run(sys.executable, '-c', WRITE_PARQUET, tmp_path / 'table.parquet')
    data = (tmp_path / 'table.parquet').read_bytes()
    if place.kind == 'bucket':
        s3_server.put(place.tree.bucket, f'{place.name}/table.parquet', data)
    else:
        (place.tree.folder / place.name / 'table.parquet').write_bytes(data)
    with elsewhere(place, s3_server, tmp_path / 'elsewhere') as other:
        other.sh(f'{shlex.quote(sys.executable)} -c {shlex.quote(READ_PARQUET)}')


def test_a_database_of_duckdb_is_kept_and_changed(place: Place, tmp_path: Path, s3_server: S3Server) -> None:
    python(place, DUCKDB_FILE)
    folder = fetched(place, s3_server, tmp_path / 'outside')
    query = """
import duckdb
print(*duckdb.connect('base.duckdb').execute('select count(*), min(text) from items').fetchone())
"""
    assert outside(folder, query) == '30000 TEXT 0\n'


def test_a_database_of_duckdb_is_locked_while_it_is_open(place: Place) -> None:
    python(place, DUCKDB_FILE)
    second = "import duckdb\ntry: duckdb.connect('base.duckdb')\nexcept duckdb.IOException as error: print(error)"
    program = f"""
import duckdb, subprocess, sys
with duckdb.connect('base.duckdb'):
    print(subprocess.run([sys.executable, '-c', {second!r}], capture_output=True, text=True, check=True).stdout)
"""
    assert 'onflicting lock' in python(place, program)


def test_imagemagick_makes_changes_and_reads_pictures(place: Place, tmp_path: Path, s3_server: S3Server) -> None:
    need('identify')
    place.sh("""convert -size 320x200 gradient:red-blue -depth 8 a.png; convert a.png -rotate 90 b.tiff
    convert a.png a.png a.png pages.tiff; convert a.png -resize 50% c.gif; mogrify -flip b.tiff
    """)
    assert place.sh("identify -format '%m %w %h\\n' a.png b.tiff c.gif pages.tiff[2]").splitlines() == [
        'PNG 320 200',
        'TIFF 200 320',
        'GIF 160 100',
        'TIFF 320 200',
    ]
    assert place.sh('compare -metric AE a.png pages.tiff[1] null: 2>&1').strip() == '0'
    folder = fetched(place, s3_server, tmp_path / 'outside')
    assert {path.name for path in folder.iterdir()} == {'a.png', 'b.tiff', 'c.gif', 'pages.tiff'}
    place.tree.run('compare', '-metric', 'AE', 'a.png', 'pages.tiff[1]', 'null:', cwd=folder)
