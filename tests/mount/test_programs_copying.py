"""What copies, links, watches and locks files on the mounted tree."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.behind import Elsewhere, elsewhere, fetched
from tests.mount.mounted import await_true, run
from tests.mount.places import Place
from tests.mount.shortcomings import LISTED_TIMES, READERS_KEEP
from tests.mount.test_programs import same_tree
from tests.mount.tools import need
from tests.servers import S3Server

on_both = pytest.mark.parametrize('place', ['bucket', 'local'], indirect=True)
only_bucket = pytest.mark.parametrize('place', ['bucket'], indirect=True)
only_local = pytest.mark.parametrize('place', ['local'], indirect=True)

#: What rsync says of a file that it sends: >f, and why.
SENT = re.compile(r'^[<>]f')


@contextmanager
def running(place: Place | Elsewhere, *command: str | Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program beside what is in the block; ended by force behind it."""
    with output.open('wb') as file:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=place.path,
            env=dict(place.tree.env),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# Trees


@on_both
def test_the_second_rsync_transfers_nothing(place: Place, s3_server: S3Server, sample: Path, tmp_path: Path) -> None:
    need('rsync')
    first = place.sh(f'rsync -a --itemize-changes {sample}/ copy/').splitlines()
    assert len([line for line in first if SENT.match(line)]) == 11
    second = place.sh(f'rsync -a --itemize-changes --stats {sample}/ copy/')
    assert 'Number of regular files transferred: 0' in second
    assert not [line for line in second.splitlines() if SENT.match(line)]
    same_tree(sample, fetched(place, s3_server, tmp_path / 'outside') / 'copy')
    (sample / 'empty').write_text('changed')
    changed = place.sh(f'rsync -a --itemize-changes --delete {sample}/ copy/').splitlines()
    assert [line.split()[-1] for line in changed if SENT.match(line)] == ['empty']
    assert place.stored('copy/empty') == b'changed'
    place.sh(f'rsync -a copy/ {tmp_path}/back')
    same_tree(sample, tmp_path / 'back')


@on_both
def test_rsync_transfers_nothing_to_what_another_daemon_shows(
    place: Place, s3_server: S3Server, sample: Path, tmp_path: Path
) -> None:
    need('rsync')
    place.sh(f'rsync -a {sample}/ copy/')
    with elsewhere(place, s3_server, tmp_path / 'elsewhere') as other:
        assert 'Number of regular files transferred: 0' in other.sh(f'rsync -a --stats {sample}/ copy/')


@on_both
@pytest.mark.parametrize('options', ['-a --inplace', '-a --partial --append-verify', '-rc --whole-file', '-a --sparse'])
def test_rsync_updates_in_place_appends_and_compares_sums(
    place: Place, s3_server: S3Server, sample: Path, tmp_path: Path, options: str
) -> None:
    need('rsync')
    place.sh(f'rsync {options} {sample}/ copy/')
    with (sample / 'dir 0' / 'sub2' / 'file-8.txt').open('ab') as file:
        file.write(b'more')
    place.sh(f'rsync {options} {sample}/ copy/')
    same_tree(sample, fetched(place, s3_server, tmp_path / 'outside') / 'copy')


@on_both
def test_an_archived_tree_has_its_modes_and_times(place: Place, sample: Path) -> None:
    run('find', '.', '-exec', 'touch', '-d', '2001-02-03 04:05:06.789', '{}', '+', cwd=sample)
    (sample / 'dir 0').chmod(0o750)
    place.sh(f'cp -a {sample} copy; cp -a copy again; cp -au {sample}/. copy')
    # Of times a file has one of its own everywhere; directories of a store have none.
    for kind in ('-type f',) if place.kind == 'bucket' else ('-type f', '-type d'):
        expected = sorted(run('find', '.', *kind.split(), '-printf', '%p %m %T@\n', cwd=sample).stdout.splitlines())
        for copy in ('copy', 'again'):
            assert sorted(place.sh(f"cd {copy}; find . {kind} -printf '%p %m %T@\\n'").splitlines()) == expected


@on_both
def test_a_file_manager_copies_moves_and_does_not_trash(place: Place, s3_server: S3Server, sample: Path) -> None:
    need('gio')
    big = 'dir 0/sub2/file-8.txt'
    place.sh(f'gio mkdir there; gio copy "{sample}/{big}" there/; gio copy -p there/file-8.txt there/again')
    place.sh('gio move there/again there/moved; gio rename there/moved renamed; echo text | gio save there/saved')
    for name in ('file-8.txt', 'renamed'):
        assert place.stored(f'there/{name}') == (sample / big).read_bytes()
    assert place.stored('there/saved') == b'text\n'
    assert 'standard::size: 5' in place.sh('gio info there/saved')
    refused = run('gio', 'trash', 'there/saved', cwd=place.path, env=place.tree.env)
    assert refused.returncode, refused.stdout
    assert place.names() == {'there/file-8.txt', 'there/renamed', 'there/saved'}
    place.sh('gio remove there/saved')
    assert place.names() == {'there/file-8.txt', 'there/renamed'}


@on_both
def test_install_sets_modes_and_replaces(place: Place) -> None:
    place.sh('echo 1 > f; install -d lib/deep; install -m 755 f lib/deep/g; echo 2 > f; install -b -m 644 f lib/deep/g')
    assert place.stored('lib/deep/g') == b'2\n'
    assert place.stored('lib/deep/g~') == b'1\n'
    place.sh('install -C -m 644 f lib/deep/g; install -D f new/sub/h')
    assert place.sh('stat -c %a lib/deep/g').strip() == '644'
    assert place.stored('new/sub/h') == b'2\n'


# Blocks


def test_dd_writes_at_offsets_appends_and_syncs(place: Place) -> None:
    place.sh("""seq 1000 > lines; dd if=lines of=f bs=100 conv=fsync status=none; cmp lines f
    printf MIDDLE | dd of=f bs=1 seek=1000 conv=notrunc,fdatasync status=none
    printf END | dd of=f oflag=append conv=notrunc status=none
    dd if=f of=g bs=7 skip=2 count=5 iflag=fullblock status=none; dd if=g of=h oflag=dsync bs=3 status=none
    printf cut | dd of=f bs=1 seek=2000 status=none
    dd if=f of=i bs=4096 iflag=direct oflag=direct conv=notrunc status=none
    dd if=/dev/zero of=sparse bs=1 count=0 seek=1M status=none; dd if=lines of=sparse conv=sparse,notrunc status=none
    """)
    lines = b''.join(b'%d\n' % number for number in range(1, 1001))
    expected = bytearray(lines[:2000] + b'cut')
    expected[1000:1006] = b'MIDDLE'
    assert place.stored('f') == expected
    assert place.stored('i') == expected
    assert place.stored('h') == lines[14:49]
    assert place.stored('sparse') == lines.ljust(1 << 20, b'\0')


def test_truncate_cuts_lengthens_and_makes(place: Place) -> None:
    place.sh('seq 10 > f; truncate -s 5 f; truncate -s +3 f; truncate -s %16 f; truncate -s 0 g; truncate -s 1M h')
    assert place.stored('f') == b'1\n2\n3'.ljust(16, b'\0')
    assert place.stored('g') == b''
    assert place.stored('h') == bytes(1 << 20)


def test_tee_appends_beside_others(place: Place) -> None:
    place.sh('echo 1 | tee -a a b > /dev/null; echo 2 | tee -a a b | tee -a c > /dev/null; seq 3 4 | tee a >> b')
    assert place.stored('a') == b'3\n4\n'
    assert place.stored('b') == b'1\n2\n3\n4\n'
    assert place.stored('c') == b'2\n'


# Times and sizes


def test_find_tells_what_is_newer(place: Place) -> None:
    place.sh('touch -d "2 days ago" old; touch -d "1 day ago" stamp; echo x > new; touch -d "2 days" future')
    assert sorted(place.sh('find . -type f -newer stamp').split()) == ['./future', './new']
    assert place.sh('find . -type f -mtime +1').split() == ['./old']
    assert place.sh('find . -type f -size -1k -name "[no]*" -empty').split() == ['./old']
    assert place.sh('test new -nt old && test old -ot stamp && echo yes') == 'yes\n'


def test_what_is_written_is_newer_than_what_was_touched_before(place: Place) -> None:
    # Several: a second may begin between the two.
    place.sh('for i in 1 2 3 4 5; do touch stamp; sleep 0.02; echo x > new; find new -newer stamp | grep -q new; done')


@on_both
def test_a_time_that_was_set_stays(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    place.sh('echo x > f; touch -d "2001-02-03 04:05:06.123456789 UTC" f; touch -r f g; cp -p f h; echo more >> g')
    wanted = '981173106.123456789'
    assert place.sh("find f h -printf '%T@\\n'").split() == [f'{wanted}0'] * 2
    assert place.sh('find . -newer f -type f') == './g\n'
    with elsewhere(place, s3_server, tmp_path / 'elsewhere') as other:
        assert other.sh("find f h -printf '%T@\\n'").split() == [f'{wanted}0'] * 2


@pytest.mark.parametrize('place', [pytest.param('bucket', marks=LISTED_TIMES), 'local'], indirect=True)
def test_a_listing_tells_the_times_that_were_set(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    place.sh('mkdir d; for i in 1 2 3; do echo $i > d/$i; touch -d "2001-02-03 UTC" d/$i; done')
    with elsewhere(place, s3_server, tmp_path / 'elsewhere') as other:
        assert other.sh("find d -type f -printf '%TY '").split() == ['2001'] * 3


@on_both
def test_du_and_ls_tell_of_a_tree_what_is_in_it(place: Place, sample: Path) -> None:
    place.sh(f'cp -r {sample} copy')
    expected = sum(path.stat().st_size for path in sample.rglob('*') if path.is_file())
    blocks = int(place.sh('du -s -B1 copy').split()[0])
    assert blocks >= expected
    assert int(place.sh("du -a --apparent-size -B1 copy | grep file- | cut -f1 | awk '{n+=$1} END {print n}'")) == (
        expected - (sample / 'program').stat().st_size
    )


# Links


@only_local
def test_ln_makes_links_that_others_see(place: Place) -> None:
    place.sh('echo x > f; ln f hard; ln -s f soft; ln -sfn . here; ln -f soft again; ln -sr f relative; cp -l f linked')
    folder = place.tree.folder / place.name
    assert (folder / 'f').stat().st_nlink == 3
    assert os.readlink(folder / 'soft') == 'f'
    place.sh('cp -s f symbolic || true; mv -T soft moved; rm f; cat hard')
    assert not (folder / 'moved').exists()


@only_bucket
def test_ln_is_refused_and_what_can_do_without_links_does(place: Place) -> None:
    for command in ('ln f hard', 'ln -s f soft', 'cp -l f linked', 'cp -s f symbolic'):
        assert 'Operation not permitted' in place.fails(f'echo x > f; {command}')
    assert place.names() == {'f'}


# Several processes


def test_flock_keeps_others_away(place: Place) -> None:
    place.sh("""seq 0 0 > count
    for i in 1 2 3 4; do (for j in 1 2 3 4 5; do
        flock lock sh -c 'n=$(cat count); echo $((n + 1)) > count'
    done) & done; wait
    """)
    assert place.stored('count') == b'20\n'
    place.sh('exec 9>lock; flock -x 9; ! flock -n lock true; ! flock -ns lock true; flock -u 9; flock -n lock true')
    place.sh('exec 9<lock; flock -s 9; flock -ns lock true; ! flock -nx lock true')


@pytest.mark.parametrize('place', [pytest.param('bucket', marks=READERS_KEEP), 'local'], indirect=True)
def test_a_lock_holds_for_who_opens_the_file_otherwise(place: Place) -> None:
    place.sh('echo x > lock; exec 9<lock; flock -x 9; cat lock > /dev/null; exec 8>>lock; ! flock -n 8')


def test_tail_follows_a_file_that_somebody_has_open_to_write(place: Place, tmp_path: Path) -> None:
    output = tmp_path / 'output'
    place.sh('echo first > log')
    writer = 'exec 1>>log; i=0; while test ! -e done; do i=$((i+1)); echo line $i; touch begun; sleep 0.05; done'
    with running(place, 'sh', '-c', writer, output=tmp_path / 'writer'):
        place.sh('until test -e begun; do sleep 0.02; done')
        with running(place, 'tail', '-s', '0.05', '-n', '+1', '-f', 'log', output=output):
            await_true(lambda: 'line 20\n' in output.read_text(), what='tail')
        place.sh('touch done')
    expected = ['first', *(f'line {number}' for number in range(1, 21))]
    assert output.read_text().splitlines()[:21] == expected


@pytest.mark.parametrize('place', [pytest.param('bucket', marks=READERS_KEEP), 'local'], indirect=True)
def test_tail_follows_a_file_that_is_opened_for_each_line(place: Place, tmp_path: Path) -> None:
    output = tmp_path / 'output'
    place.sh('echo first > log')
    with running(place, 'tail', '-s', '0.05', '-f', 'log', output=output):
        await_true(lambda: 'first' in output.read_text(), what='tail')
        place.sh('echo second >> log; echo third >> log')
        await_true(lambda: 'third' in output.read_text(), timeout_s=2, what='tail')


def test_inotify_tells_of_what_is_done_through_the_mount(place: Place, tmp_path: Path) -> None:
    need('inotifywait')
    output = tmp_path / 'output'
    with running(place, 'inotifywait', '-m', '--format', '%e %f', '.', output=output):
        await_true(lambda: 'established' in output.read_text(), what='inotifywait')
        place.sh('echo x > made; mv made moved; rm moved; mkdir sub')
        await_true(lambda: 'sub' in output.read_text(), what='inotifywait')
    events = output.read_text().splitlines()[2:]
    for event in ('CREATE made', 'MODIFY made', 'CLOSE_WRITE,CLOSE made', 'MOVED_TO moved', 'DELETE moved'):
        assert event in events
    assert 'CREATE,ISDIR sub' in events


@only_bucket
def test_inotify_tells_nothing_of_what_others_do(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    need('inotifywait')
    output = tmp_path / 'output'
    with (
        elsewhere(place, s3_server, tmp_path / 'elsewhere') as other,
        running(other, 'inotifywait', '-m', '--format', '%e %f', '.', output=output),
    ):
        await_true(lambda: 'established' in output.read_text(), what='inotifywait')
        place.sh('touch theirs')
        other.sh('until test -e theirs; do sleep 0.05; done; touch ours')
        await_true(lambda: 'CREATE ours' in output.read_text(), what='inotifywait')
    assert 'CREATE theirs' not in output.read_text().splitlines()
