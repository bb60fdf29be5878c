"""The programs of everyday on the mounted tree, each result checked on what is behind the mount."""

import sys
from pathlib import Path

import pytest

from tests.mount.mounted import Mounted, run
from tests.mount.places import Place
from tests.servers import S3Server


def same_tree(one: Path | str, other: Path | str) -> None:
    done = run('diff', '-r', '--no-dereference', one, other)
    assert done.returncode == 0, done.stdout


# Looking


def test_ls_shows_each_mount_and_its_files(everything: Mounted, place: Place) -> None:
    assert everything.run('ls').split() == ['bucket', 'local', 'memory']
    place.sh('printf 12345 > file; mkdir dir')
    lines = {line.split()[-1]: line for line in place.sh('ls -la').splitlines()[1:]}
    assert set(lines) == {'.', '..', 'file', 'dir'}
    assert lines['file'].startswith('-rw')
    assert lines['file'].split()[4] == '5'
    assert lines['dir'].startswith('drwx')


def test_find_and_grep_read_a_whole_tree(place: Place, sample: Path) -> None:
    place.sh(f'cp -r {sample} sample')
    expected = run('find', '.', '-printf', '%y %s %P\n', cwd=sample).stdout.splitlines()
    found = place.sh("cd sample && find . -printf '%y %s %P\\n'").splitlines()

    # The size of a directory is nobody's business.
    def files(lines: list[str]) -> list[str]:
        return sorted(line if line[0] == 'f' else line[0] + line.split(' ', 2)[2] for line in lines)

    assert files(found) == files(expected)
    matches = place.sh('grep -rlx "line 7" sample').splitlines()
    assert matches == ['sample/dir 3/sub1/file-7.txt']


def test_du_and_df_tell_sizes(place: Place) -> None:
    place.sh('head -c 300000 /dev/zero > file; printf x > small')
    assert int(place.sh('du -sb --apparent-size file').split()[0]) == 300_000
    assert int(place.sh('du -s -B1 file small').split()[0]) >= (300_000 if place.kind != 'local' else 0)
    header, line = place.sh('df -B1 .').splitlines()
    assert 'Available' in header or 'Avail' in header
    assert int(line.split()[3]) > 0
    assert 'genro-storage' in place.sh('df -a --output=source,fstype .')


def test_stat_after_a_write_is_of_what_was_written(place: Place) -> None:
    for size in (0, 1, 4096, 100_000):
        assert place.sh(f'head -c {size} /dev/zero > f; stat -c %s f').strip() == f'{size}'
    assert place.sh('stat -c %F f .').splitlines() == ['regular file', 'directory']


# Copying and moving


def test_a_tree_is_copied_in_and_out(place: Place, sample: Path, tmp_path: Path) -> None:
    place.sh(f'cp -r {sample} sample')
    assert place.names() == {f'sample/{path.relative_to(sample)}' for path in sample.rglob('*') if path.is_file()}
    assert place.stored('sample/dir 3/sub1/file-7.txt') == (sample / 'dir 3/sub1/file-7.txt').read_bytes()
    place.sh(f'cp -r sample {tmp_path}/back; cp -r sample again')
    same_tree(sample, tmp_path / 'back')
    place.tree.run('diff', '-r', sample, place.path / 'again')


def test_a_copy_that_preserves_keeps_times_and_modes(place: Place, tmp_path: Path) -> None:
    source = tmp_path / 'source'
    source.write_text('content')
    run('touch', '-d', '2001-02-03 04:05:06.789', source)
    source.chmod(0o640)
    place.sh(f'cp -p {source} copy; cp -a {source} archived')
    for name in ('copy', 'archived'):
        assert place.sh(f'stat -c "%a %y" {name}').startswith('640 2001-02-03 04:05:06.789')
        assert place.stored(name) == b'content'


def test_files_and_directories_move_within_a_mount(place: Place) -> None:
    place.sh('mkdir -p a/b; echo one > a/b/one; echo two > a/two; mv a/two a/b/; mv a/b c; mv c/one c/uno; mv c d')
    assert place.names() == {'d/uno', 'd/two'}
    assert place.stored('d/uno') == b'one\n'
    assert place.sh('ls a') == ''
    place.sh('echo three > three; mv -f three d/two; mv -n d/two d/uno')
    assert place.stored('d/two') == b'three\n'
    assert place.stored('d/uno') == b'one\n'


@pytest.mark.parametrize('target', ['bucket', 'memory', 'local'])
def test_files_and_directories_move_across_mounts(place: Place, s3_server: S3Server, target: str, sample: Path) -> None:
    there = Place(place.tree, s3_server, target)
    place.sh(f'cp -r {sample} tree; echo file > file; mv file tree "{there.path}/"')
    assert place.names() == set()
    assert place.sh('ls') == ''
    assert there.stored('file') == b'file\n'
    place.tree.run('diff', '-r', sample, there.path / 'tree')


def test_a_tree_is_removed(place: Place, sample: Path) -> None:
    place.sh(f'cp -r {sample} sample; rm -r sample')
    assert place.names() == set()
    assert place.sh('ls -A') == ''


def test_tar_packs_and_unpacks(place: Place, sample: Path, tmp_path: Path) -> None:
    run('tar', 'cf', tmp_path / 'sample.tar', '-C', sample, '.')
    place.sh(f'mkdir sample; tar xf {tmp_path}/sample.tar -C sample')
    assert place.stored('sample/program') == (sample / 'program').read_bytes()
    place.sh(f'tar cf packed.tar -C sample . && mkdir {tmp_path}/out && tar xf packed.tar -C {tmp_path}/out')
    same_tree(sample, tmp_path / 'out')


def test_what_rsync_does_is_accepted(place: Place) -> None:
    program = """
import os
fd = os.open('.file.Xa3d', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.write(fd, b'synchronised')
os.ftruncate(fd, 12)
os.fchmod(fd, 0o644)
os.close(fd)
os.utime('.file.Xa3d', ns=(1_000_000_000_000_000_000, 1_000_000_000_123_000_000))
os.chmod('.file.Xa3d', 0o644)
os.rename('.file.Xa3d', 'file')
assert os.stat('file').st_mtime_ns == 1_000_000_000_123_000_000, os.stat('file')
assert os.stat('file').st_mode & 0o777 == 0o644
os.chmod('.', 0o755)
"""
    place.tree.run(sys.executable, '-c', program, cwd=place.path)
    assert place.stored('file') == b'synchronised'
    assert place.names() == {'file'}


# Writing


def test_a_shell_that_writes_through_several_programs_makes_one_file(place: Place) -> None:
    place.sh("sh -c '(echo a; echo b; /bin/echo c) > f'")
    assert place.stored('f') == b'a\nb\nc\n'
    place.sh('echo d >> f; echo e >> f; { echo f; echo g; } >> f')
    assert place.stored('f') == b'a\nb\nc\nd\ne\nf\ng\n'
    place.sh('(sleep 0.05; echo later) >> f & echo sooner >> f; wait')
    assert sorted(place.stored('f').split()) == sorted(b'a b c d e f g later sooner'.split())


def test_what_is_redirected_over_is_replaced(place: Place) -> None:
    place.sh('seq 10000 > f; echo short > f')
    assert place.stored('f') == b'short\n'
    place.sh(': > f')
    assert place.stored('f') == b''


def test_tee_and_cat_write_to_several_files(place: Place) -> None:
    place.sh('seq 5 | tee a b > c; cat a b c > d')
    assert place.stored('d') == b'1\n2\n3\n4\n5\n' * 3


def test_dd_seeks_and_leaves_holes(place: Place) -> None:
    place.sh('printf end | dd of=f bs=1 seek=100000 status=none')
    assert place.stored('f') == bytes(100_000) + b'end'
    place.sh('printf HERE | dd of=f bs=1 seek=50 conv=notrunc status=none; truncate -s 100 f; truncate -s +10 f')
    assert place.stored('f') == bytes(50) + b'HERE' + bytes(56)
    place.sh('dd if=/dev/zero of=g bs=64k count=20 oflag=sync conv=fsync status=none')
    assert place.stored('g') == bytes(20 * 65536)


def test_touch_makes_files_and_sets_times(place: Place) -> None:
    place.sh('touch new; touch -d "1999-12-31 23:59:58" old; touch -r old new')
    assert place.sh('date -r new +%F').strip() == '1999-12-31'
    assert place.names() == {'new', 'old'}


def test_directories_are_made_in_one_go(place: Place) -> None:
    place.sh('mkdir -p a/b/c/d; mkdir -p a/b; echo x > a/b/c/d/f; rmdir --ignore-fail-on-non-empty -p a/b/c/d')
    assert place.names() == {'a/b/c/d/f'}
    assert 'File exists' in place.fails('mkdir a')
    assert 'not empty' in place.fails('rmdir a')


def test_links_are_made_where_there_are_any(local: Place) -> None:
    local.sh('echo x > f; ln -s f s; ln f h; ln -s /nowhere broken')
    assert local.sh('cat s h; readlink broken; stat -c %h f') == 'x\nx\n/nowhere\n2\n'


def test_links_have_times_and_owners_of_their_own(local: Place) -> None:
    local.sh('echo x > f; ln -s f s; ln -s gone d; touch -h -d 2001-02-03 s; touch -h -d 2002-02-03 d; touch f')
    assert local.sh('stat -c %y s').startswith('2001-02-03')
    local.sh('chown -h $(id -u):$(id -g) s; cp -a . ../copied-links; tar cf t.tar s d; rm s d; tar xf t.tar')
    for name in ('s', '../copied-links/s'):
        assert local.sh(f'stat -c "%y %F" {name}').startswith('2001-02-03')
    assert local.sh('stat -c %Y f') != local.sh('stat -c %Y s')


def test_links_are_refused_where_there_are_none(store: Place) -> None:
    for command in ('ln -s f s', 'ln f h', 'mkfifo p'):
        assert 'Operation not permitted' in store.fails(f'echo x > f; {command}')
    assert store.names() == {'f'}


# Editors


def test_sed_edits_in_place(place: Place) -> None:
    place.sh('seq 100 > f; sed -i s/^5/five/ f; sed -i.bak 1d f')
    expected = ['five' + str(number)[1:] if str(number)[0] == '5' else str(number) for number in range(1, 101)]
    assert place.stored('f').decode().split() == expected[1:]
    assert place.names() == {'f', 'f.bak'}


def test_an_editor_that_writes_a_temporary_file_and_renames_it_saves(place: Place) -> None:
    for round_ in range(3):
        place.sh(f'echo "text {round_}" > .f.swp; sync .f.swp; mv .f.swp f')
        assert place.stored('f') == f'text {round_}\n'.encode()
    assert place.names() == {'f'}


def test_an_editor_that_truncates_and_writes_saves(place: Place) -> None:
    program = """
with open('f', 'r+') as file:
    text = file.read()
    file.seek(0)
    file.truncate()
    file.write(text.upper())
"""
    place.sh('echo text > f')
    place.tree.run(sys.executable, '-c', program, cwd=place.path)
    assert place.stored('f') == b'TEXT\n'


def test_an_editor_that_keeps_a_backup_saves(place: Place) -> None:
    place.sh('echo old > f; mv f f~; echo new > f; sync f; rm f~')
    assert place.stored('f') == b'new\n'
    assert place.names() == {'f'}


# What vim does, as strace shows it, with `set backup` and 'backupcopy' yes and no.
VIM_COPIES = """
text = open('f', 'rb').read()
backup = os.open('f~', os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
os.write(backup, text); os.close(backup)
os.utime('f~', (1_000_000_000, 1_000_000_000)); os.chmod('f~', 0o644)
file = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
os.write(file, b'two\\n' + text); os.fsync(file); os.stat('f'); os.close(file); os.chmod('f', 0o644)
"""
VIM_RENAMES = """
text = open('f', 'rb').read()
probe = os.open('4913', os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o100644)
os.fchown(probe, os.geteuid(), os.getegid()); os.close(probe); os.unlink('4913')
os.rename('f', 'f~')
file = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
os.write(file, b'two\\n' + text); os.fsync(file); os.stat('f'); os.close(file); os.chmod('f', 0o644)
"""


@pytest.mark.parametrize('saves', [VIM_COPIES, VIM_RENAMES], ids=['copies', 'renames'])
def test_vim_saves(place: Place, saves: str) -> None:
    place.sh('echo one > f')
    place.tree.run(sys.executable, '-c', f'import os{saves}', cwd=place.path)
    assert place.stored('f') == b'two\none\n'
    assert place.stored('f~') == b'one\n'
    assert place.names() == {'f', 'f~'}


def test_python_writes_and_reads_in_every_mode(place: Place) -> None:
    program = """
import pathlib, tempfile, shutil, json, sqlite3
here = pathlib.Path('.')
here.joinpath('a').write_text('one\\ntwo\\n')
with open('a', 'a') as file: file.write('three\\n')
with open('a', 'r+b') as file:
    file.seek(4); file.write(b'TWO'); file.seek(0); assert file.read() == b'one\\nTWO\\nthree\\n'
try: open('a', 'x')
except FileExistsError: pass
with tempfile.NamedTemporaryFile(dir='.') as file:
    file.write(b'x'); file.flush(); assert pathlib.Path(file.name).read_bytes() == b'x'
with tempfile.TemporaryDirectory(dir='.') as folder: pathlib.Path(folder, 'f').write_text('f')
shutil.copytree('.', '../' + here.resolve().name + '-copy'); shutil.rmtree('../' + here.resolve().name + '-copy')
database = sqlite3.connect('db'); database.execute('create table t (x)')
with database: database.executemany('insert into t values (?)', [(n,) for n in range(100)])
assert database.execute('select sum(x) from t').fetchone() == (4950,); database.close()
assert sorted(p.name for p in here.iterdir()) == ['a', 'db']
"""
    place.tree.run(sys.executable, '-c', program, cwd=place.path)
    assert place.stored('a') == b'one\nTWO\nthree\n'
    assert place.stored('db').startswith(b'SQLite format 3')


def test_git_works_in_a_local_mount(local: Place) -> None:
    git = 'git -c user.name=a -c user.email=a@b -c init.defaultBranch=main'
    local.sh(f'{git} init -q repo; cd repo; echo one > f; git add f; {git} commit -qm one; echo two >> f')
    local.sh(f'cd repo; {git} commit -qam two; git mv f g; {git} commit -qm three; git gc -q; git fsck --strict')
    assert local.sh('cd repo; git status --porcelain; git log --format=%s').split() == ['three', 'two', 'one']
    assert (local.tree.folder / local.name / 'repo' / 'g').read_bytes() == b'one\ntwo\n'


def test_a_program_runs_from_the_mount(local: Place) -> None:
    local.sh('printf "#!/bin/sh\\necho ran\\n" > program; chmod +x program')
    assert local.sh('./program') == 'ran\n'


def test_many_programs_write_at_once(place: Place) -> None:
    place.sh('for i in 1 2 3 4 5 6 7 8; do (for j in 1 2 3 4; do echo $i.$j > f$i.$j; done) & done; wait')
    assert place.names() == {f'f{i}.{j}' for i in range(1, 9) for j in range(1, 5)}
    for i in range(1, 9):
        assert place.stored(f'f{i}.4') == f'{i}.4\n'.encode()
