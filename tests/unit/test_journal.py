"""What the journal promises while its process lives, and to the process that comes after it."""

import errno
import json
import logging
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from genro_storage.backends.base import ABSENT
from genro_storage.entry import Version
from genro_storage.errors import StorageIOError, StorageNoSpaceError, StoragePathError, StoragePermissionError
from genro_storage.local_disk import local_disk_errors
from genro_storage.runtime import SystemClock
from genro_storage.writing.journal import Intent, Journal, folder_of
from genro_storage.writing.journal_folder import INLINE_BYTES
from genro_storage.writing.journal_roots import known_roots, register_root
from genro_storage.writing.journal_survey import Waiting, everything
from tests.machine import need_root
from tests.unit.journals import (
    DESTINATION,
    Nameless,
    add,
    add_inline,
    content_of,
    files_below,
    found,
    journal_in,
    put,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = journal_in(tmp_path)
    yield journal
    journal.close()


def successor(tmp_path: Path) -> Journal:
    """The journal of the process that comes after."""
    return journal_in(tmp_path)


def fill(path: Path) -> None:
    """A file that takes all the room there is."""
    with path.open('wb', buffering=0) as file, suppress(StorageNoSpaceError), local_disk_errors(path.parent):
        while True:
            file.write(b'x' * 4096)


def own_files(tmp_path: Path) -> list[str]:
    """Files in folders of processes, without the name of the folder."""
    return [Path(name).name for name in files_below(tmp_path / 'cache' / 'journal') if name.count('/') == 2]


class TestAdding:
    def test_nothing_is_made_before_the_first_intent(self, tmp_path: Path) -> None:
        journal = journal_in(tmp_path)
        assert journal.adopt() == []
        journal.close()
        assert list(tmp_path.iterdir()) == []

    def test_what_was_added_is_found_by_the_next(self, tmp_path: Path, journal: Journal) -> None:
        held = add(journal, 'a/b.txt', b'content')
        assert content_of(held) == b'content'
        journal.close()
        after = successor(tmp_path)
        (again,) = after.adopt()
        assert (again.intent, content_of(again)) == (held.intent, b'content')
        after.close()

    def test_staged_data_are_linked_and_not_copied(self, tmp_path: Path, journal: Journal) -> None:
        data = Nameless(tmp_path, b'x' * 5000)
        held = journal.add(put(journal, 'f', b'x' * 5000), data)
        assert held.data_path.stat().st_nlink == 1
        data.close()
        assert content_of(held) == b'x' * 5000

    def test_an_upload_needs_no_data(self, tmp_path: Path, journal: Journal) -> None:
        intent = Intent(id=journal.new_id(), kind='upload', mount='m', path='f', created_ns=1, token='a token')
        journal.add(intent)
        journal.close()
        after = successor(tmp_path)
        assert [held.intent for held in after.adopt()] == [intent]
        after.close()

    def test_a_removal_needs_no_data(self, tmp_path: Path, journal: Journal) -> None:
        intent = Intent(id=journal.new_id(), kind='remove', mount='m', path='f', created_ns=1, expected='v')
        journal.add(intent)
        journal.close()
        after = successor(tmp_path)
        assert [held.intent for held in after.adopt()] == [intent]
        after.close()

    def test_the_plan_of_a_move_is_read_back(self, journal: Journal) -> None:
        intent = Intent(id=journal.new_id(), kind='move', mount='m', path='a', target='b', created_ns=1)
        assert journal.add(intent, b'plan').read_data() == b'plan'

    def test_all_is_of_the_user_alone_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            journal = journal_in(tmp_path)
            journal.failed(add(journal, 'f', b'x'), OSError('no'))
        finally:
            os.umask(before)
        paths = [path for name in ('cache', 'state') for path in [tmp_path / name, *(tmp_path / name).rglob('*')]]
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}
        journal.close()

    def test_no_descriptor_outlives_an_exec(self, journal: Journal) -> None:
        held = add(journal, 'f', b'x')
        descriptor = held.open_data()
        ours = {
            number: os.readlink(f'/proc/self/fd/{number}')
            for number in os.listdir('/proc/self/fd')
            if os.path.exists(f'/proc/self/fd/{number}')
        }
        journals = [int(number) for number, target in ours.items() if str(journal.root) in target]
        assert len(journals) == 3
        assert not any(os.get_inheritable(number) for number in journals)
        os.close(descriptor)

    def test_an_id_is_taken_only_once(self, journal: Journal) -> None:
        held = add(journal, 'f', b'one')
        with pytest.raises(ValueError, match='there already'):
            journal.add(held.intent, b'two')
        assert content_of(held) == b'one'

    def test_an_id_that_could_be_a_path_is_refused(self, journal: Journal) -> None:
        intent = msgspec.structs.replace(put(journal, 'f', b''), id='../../escape')
        with pytest.raises(ValueError, match='no id'):
            journal.add(intent, b'')

    def test_many_threads_add_at_once(self, tmp_path: Path, journal: Journal) -> None:
        expected = [(f'file {number}', b'%d' % number * 100) for number in range(64)]

        def add_some(first: int) -> None:
            for path, content in expected[first::8]:
                add(journal, path, content)

        threads = [threading.Thread(target=add_some, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        journal.close()
        after = successor(tmp_path)
        assert found(after.adopt()) == sorted(expected)
        after.close()

    def test_a_folder_that_somebody_removed_is_made_anew(self, tmp_path: Path, journal: Journal) -> None:
        held = add(journal, 'lost', b'x')
        for path in sorted((tmp_path / 'cache').rglob('*'), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        add(journal, 'kept', b'y')
        with pytest.raises(StorageIOError, match='not ours any more'):
            journal.drop(held)
        journal.close()
        after = successor(tmp_path)
        assert found(after.adopt()) == [('kept', b'y')]
        after.close()


class TestNames:
    @pytest.mark.parametrize(
        'path', ['plain', 'été', 'a%FFb', '100%', 'caf\udce9', '%25', 'tab\tand\nline', '\udcff\udc80']
    )
    def test_every_name_survives(self, tmp_path: Path, journal: Journal, path: str) -> None:
        held = journal.add(
            msgspec.structs.replace(put(journal, path, b'x'), target=path, expected=f'"{path}"', token=path), b'x'
        )
        journal.close()
        after = successor(tmp_path)
        assert [each.intent for each in after.adopt()] == [held.intent]
        after.close()

    def test_a_record_is_readable_json(self, journal: Journal) -> None:
        held = add(journal, 'caf\udce9 bar', b'x')
        record = json.loads(held.data_path.with_suffix('.intent').read_text())
        assert record['path'] == 'caf%E9 bar'

    def test_text_that_no_file_name_can_have_is_refused_and_leaves_nothing(
        self, tmp_path: Path, journal: Journal
    ) -> None:
        add(journal, 'first', b'1')
        before = own_files(tmp_path)
        with pytest.raises(StoragePathError):
            add(journal, '\ud800', b'x')
        assert own_files(tmp_path) == before

    def test_keys_of_a_newer_version_are_ignored(self, tmp_path: Path, journal: Journal) -> None:
        held = add(journal, 'f', b'x')
        path = held.data_path.with_suffix('.intent')
        path.write_text(json.dumps(json.loads(path.read_text()) | {'newer': [1]}))
        journal.close()
        after = successor(tmp_path)
        assert [each.intent for each in after.adopt()] == [held.intent]
        after.close()


class TestDataInTheRecord:
    """Of what is small there is one file, so that one has to be made durable."""

    CONTENT = b'{"not": "the record"}\n\nbut behind it'

    def test_they_are_found_by_the_next(self, tmp_path: Path, journal: Journal) -> None:
        held = add_inline(journal, 'a\nb', self.CONTENT)
        assert own_files(tmp_path) == [f'{held.intent.id}.intent', 'lock']
        assert (content_of(held), held.read_data()) == (self.CONTENT, self.CONTENT)
        journal.close()
        after = successor(tmp_path)
        (again,) = after.adopt()
        assert (again.intent, content_of(again), again.read_data()) == (held.intent, self.CONTENT, self.CONTENT)
        after.drop(again)
        assert own_files(tmp_path) == []
        after.close()

    def test_an_empty_file_has_data_too(self, tmp_path: Path, journal: Journal) -> None:
        held = add_inline(journal, 'f', b'')
        assert own_files(tmp_path) == [f'{held.intent.id}.intent', 'lock']
        assert content_of(held) == b''

    def test_what_is_opened_is_private_and_has_no_name(self, tmp_path: Path, journal: Journal) -> None:
        held = add_inline(journal, 'f', self.CONTENT)
        before = own_files(tmp_path)
        descriptor = held.open_data()
        try:
            assert os.pread(descriptor, 100, 0) == self.CONTENT
            assert os.fstat(descriptor).st_nlink == 0
            assert not os.get_inheritable(descriptor)
            os.pwrite(descriptor, b'changed', 0)
        finally:
            os.close(descriptor)
        assert (content_of(held), own_files(tmp_path)) == (self.CONTENT, before)

    def test_longer_ones_and_those_that_people_look_at_are_files(self, tmp_path: Path, journal: Journal) -> None:
        largest = add_inline(journal, 'f', bytes(INLINE_BYTES))
        long = add_inline(journal, 'f', bytes(INLINE_BYTES + 1))
        parked = add_inline(journal, 'f', self.CONTENT, parked=True)
        assert [held.data_path.exists() for held in (largest, long, parked)] == [False, True, True]
        assert parked.data_path.read_bytes() == self.CONTENT

    def test_a_rewritten_record_keeps_them(self, tmp_path: Path, journal: Journal) -> None:
        held = add_inline(journal, 'before', self.CONTENT)
        moved = journal.rewrite(held, msgspec.structs.replace(held.intent, path='after'))
        assert (moved.intent.path, content_of(moved)) == ('after', self.CONTENT)
        journal.close()
        after = successor(tmp_path)
        assert found(after.adopt()) == [('after', self.CONTENT)]
        after.close()

    def test_a_rewrite_that_fails_leaves_them_as_they_were(
        self, tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held = add_inline(journal, 'before', self.CONTENT)
        fsync, directory = os.fsync, held.folder._directory

        def fail_of_directory(descriptor: int) -> None:
            if descriptor == directory:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(descriptor)

        monkeypatch.setattr(os, 'fsync', fail_of_directory)
        with pytest.raises(StorageIOError):
            journal.rewrite(held, msgspec.structs.replace(held.intent, path='after'))
        monkeypatch.undo()
        journal.close()
        after = successor(tmp_path)
        assert found(after.adopt()) == [('before', self.CONTENT)]
        after.close()

    def test_if_they_are_cut_off_the_record_is_damaged_and_kept(self, tmp_path: Path, journal: Journal) -> None:
        held = add_inline(journal, 'f', self.CONTENT)
        record = held.data_path.with_suffix('.intent')
        whole = record.read_bytes()
        record.write_bytes(whole[:-1])
        journal.close()
        after = successor(tmp_path)
        assert after.adopt() == []
        assert record.with_suffix('.damaged').read_bytes() == whole[:-1]
        (shown,) = everything(journal.root)
        assert (shown.state, shown.size_bytes) == ('damaged', len(self.CONTENT) - 1)
        after.close()


class TestChanging:
    def test_a_replaced_intent_is_gone_and_the_new_one_counts(self, tmp_path: Path, journal: Journal) -> None:
        old = add(journal, 'f', b'old')
        journal.replace(old, put(journal, 'f', b'newer'), b'newer')
        journal.close()
        after = successor(tmp_path)
        assert found(after.adopt()) == [('f', b'newer')]
        after.close()

    def test_replacing_nothing_adds(self, journal: Journal) -> None:
        assert content_of(journal.replace(None, put(journal, 'f', b'x'), b'x')) == b'x'

    def test_a_second_file_of_the_same_path_replaces_nothing(self, tmp_path: Path, journal: Journal) -> None:
        """What is parked there was somebody's data, and stays until somebody decides."""
        add(journal, 'f', b'parked', parked=True)
        add(journal, 'f', b'written later')
        journal.close()
        after = successor(tmp_path)
        assert found(after.adopt()) == [('f', b'parked'), ('f', b'written later')]
        after.close()

    def test_a_rewritten_record_keeps_its_data(self, tmp_path: Path, journal: Journal) -> None:
        held = add(journal, 'before', b'content')
        moved = journal.rewrite(held, msgspec.structs.replace(held.intent, path='after', parked=True))
        assert moved.intent.path == 'after'
        journal.close()
        after = successor(tmp_path)
        (again,) = after.adopt()
        assert (again.intent.path, again.intent.parked, content_of(again)) == ('after', True, b'content')
        after.close()

    def test_a_rewrite_with_another_id_is_refused(self, journal: Journal) -> None:
        held = add(journal, 'f', b'x')
        with pytest.raises(ValueError, match='replace'):
            journal.rewrite(held, put(journal, 'f', b'x'))

    def test_what_is_dropped_is_gone(self, tmp_path: Path, journal: Journal) -> None:
        held = add(journal, 'f', b'x')
        journal.failed(held, OSError('once'))
        journal.drop(held)
        journal.drop(held)
        assert own_files(tmp_path) == ['lock']

    def test_an_adopted_folder_goes_with_its_last_intent(self, tmp_path: Path, journal: Journal) -> None:
        for name in 'abc':
            add(journal, name, b'x')
        journal.close()
        after = successor(tmp_path)
        for held in after.adopt():
            after.drop(held)
        assert own_files(tmp_path) == []
        after.close()

    def test_an_adopted_intent_is_replaced_in_its_own_folder(self, tmp_path: Path, journal: Journal) -> None:
        add(journal, 'f', b'old')
        journal.close()
        after = successor(tmp_path)
        (held,) = after.adopt()
        again = after.replace(held, put(after, 'f', b'new'), b'new')
        assert again.folder is held.folder
        after.close()
        last = successor(tmp_path)
        assert found(last.adopt()) == [('f', b'new')]
        last.close()

    def test_a_closed_journal_lets_nobody_touch_what_others_may_have_taken(
        self, tmp_path: Path, journal: Journal
    ) -> None:
        held = add(journal, 'f', b'x')
        journal.close()
        for change in (lambda: journal.drop(held), lambda: journal.rewrite(held, held.intent)):
            with pytest.raises(StorageIOError, match='not ours any more'):
                change()
        assert 'f' in {each.intent.path for each in everything(journal.root) if each.intent}

    def test_a_closed_journal_with_nothing_in_it_leaves_no_folder(self, tmp_path: Path, journal: Journal) -> None:
        journal.drop(add(journal, 'f', b'x'))
        journal.close()
        journal.close()
        assert own_files(tmp_path) == []


class TestAdopting:
    def test_nobody_takes_what_a_living_process_has(self, tmp_path: Path, journal: Journal) -> None:
        add(journal, 'f', b'x')
        other = successor(tmp_path)
        assert other.adopt() == []
        assert journal.adopt() == []
        other.close()

    def test_oldest_first(self, tmp_path: Path, journal: Journal) -> None:
        for age in (3, 1, 2):
            add(journal, f'{age}', b'', age=age)
        journal.close()
        after = successor(tmp_path)
        assert [held.intent.path for held in after.adopt()] == ['1', '2', '3']
        after.close()

    def test_another_destination_is_never_touched(self, tmp_path: Path, journal: Journal) -> None:
        add(journal, 'f', b'x')
        journal.close()
        other = journal_in(tmp_path, 's3://other')
        assert other.adopt() == []
        other.close()
        assert [each.destination for each in everything(journal.root)] == [DESTINATION]

    def test_what_waits_in_a_root_of_before_is_found(self, tmp_path: Path, journal: Journal) -> None:
        add(journal, 'f', b'x')
        journal.close()
        after = journal_in(tmp_path, root='elsewhere')
        assert found(after.adopt()) == [('f', b'x')]
        after.close()

    def test_what_waits_in_the_default_root_is_found(self, tmp_path: Path) -> None:
        before = journal_in(tmp_path, root='state/journal')
        add(before, 'f', b'x')
        before.close()
        assert known_roots(tmp_path / 'state') == [tmp_path / 'state' / 'journal']
        after = journal_in(tmp_path)
        assert found(after.adopt()) == [('f', b'x')]
        after.close()

    def test_data_without_a_record_are_cleared_away(self, tmp_path: Path, journal: Journal) -> None:
        held = add(journal, 'f', b'x')
        held.data_path.with_suffix('.intent').unlink()
        journal.failed(held, OSError('a note of it'))
        (held.folder.path / f'{journal.new_id()}.intent.0123abcd.tmp').write_bytes(b'torn')
        journal.close()
        after = successor(tmp_path)
        assert after.adopt() == []
        assert own_files(tmp_path) == []
        after.close()

    @pytest.mark.parametrize('damage', [b'', b'{"id": ', b'\xff\xfe', b'[]', b'{"id": "0", "kind": "put"}'])
    def test_a_damaged_record_is_set_aside_with_its_data_and_said_once(
        self, tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture, damage: bytes
    ) -> None:
        held = add(journal, 'damaged', b'precious')
        add(journal, 'whole', b'x')
        held.data_path.with_suffix('.intent').write_bytes(damage)
        journal.close()
        for _ in range(2):
            after = successor(tmp_path)
            assert found(after.adopt()) == [('whole', b'x')]
            after.close()
        aside = held.data_path.with_suffix('.damaged')
        assert aside.read_bytes() == damage
        assert held.data_path.read_bytes() == b'precious'
        assert [str(aside) in record.message for record in caplog.records if record.levelno >= logging.ERROR] == [True]
        (shown,) = [each for each in everything(journal.root) if each.state == 'damaged']
        assert (shown.record, shown.size_bytes) == (aside, 8)

    @pytest.mark.parametrize('remove', [True, False])
    def test_a_record_whose_data_are_not_whole_is_damaged(self, tmp_path: Path, journal: Journal, remove: bool) -> None:
        held = add(journal, 'f', b'content')
        held.data_path.unlink() if remove else held.data_path.write_bytes(b'con')
        assert [each.state for each in everything(journal.root)] == ['damaged']
        journal.close()
        after = successor(tmp_path)
        assert after.adopt() == []
        after.close()

    @pytest.mark.parametrize(
        ('missing', 'local'),
        [(((4, 6),), 4), (((0, 10),), 0), (((0, 4),), 10), (((2, 2), (6, 2), (8, 2)), 6), ((), 10)],
    )
    def test_data_may_end_where_only_the_base_goes_on(
        self, tmp_path: Path, journal: Journal, missing: tuple[tuple[int, int], ...], local: int
    ) -> None:
        intent = put(journal, 'f', b'0123456789', missing=missing, expected='v')
        assert intent.local_bytes == local
        journal.add(intent, b'0123456789'[:local])
        journal.close()
        after = successor(tmp_path)
        assert [held.intent for held in after.adopt()] == [intent]
        after.close()

    def test_a_folder_that_cannot_be_recovered_keeps_nobody_from_the_others(
        self, tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
    ) -> None:
        held = add(journal, 'unreadable', b'x')
        path = held.data_path.with_suffix('.intent')
        path.unlink()
        path.mkdir()
        journal.close()
        other = journal_in(tmp_path)
        add(other, 'f', b'y')
        other.close()
        after = successor(tmp_path)
        assert found(after.adopt()) == [('f', b'y')]
        assert 'could not be taken over' in caplog.text
        after.close()

    def test_a_root_of_somebody_else_is_not_trusted(
        self, tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
    ) -> None:
        need_root('to give a folder to another user')
        add(journal, 'f', b'x')
        journal.close()
        os.chown(journal.root / folder_of(DESTINATION), 12345, 12345)
        after = successor(tmp_path)
        assert after.adopt() == []
        assert 'belongs to another user' in caplog.text
        with pytest.raises(StoragePermissionError, match='belongs to user 12345'):
            add(after, 'g', b'y')

    def test_a_forked_child_has_nothing_and_its_parent_keeps_all(self, tmp_path: Path) -> None:
        program = """
        import os, sys
        from pathlib import Path
        from tests.unit.journals import add, journal_in, found
        journal = journal_in(Path(sys.argv[1]))
        held = add(journal, 'f', b'x')
        child = os.fork()
        if not child:
            journal.after_fork()
            problems = 0
            try:
                journal.drop(held)
            except OSError:
                problems = 1
            assert journal.adopt() == []
            add(journal, 'of the child', b'y')
            os._exit(10 + problems)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
        assert found(journal.adopt()) == [('of the child', b'y')]
        journal.drop(held)
        """
        lines = '\n'.join(line[8:] for line in program.splitlines())
        subprocess.run([sys.executable, '-c', lines, tmp_path], cwd=ROOT, check=True, timeout=30)

    def test_a_child_that_lives_on_does_not_keep_what_its_parent_left(self, tmp_path: Path) -> None:
        program = """
        import os, sys
        from pathlib import Path
        from tests.unit.journals import add, journal_in
        journal = journal_in(Path(sys.argv[1]))
        add(journal, 'f', b'x')
        if not os.fork():
            journal.after_fork()
            print('forked', flush=True)
            sys.stdin.read()
        else:
            os._exit(0)
        """
        lines = '\n'.join(line[8:] for line in program.splitlines())
        with subprocess.Popen(
            [sys.executable, '-c', lines, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b'forked\n'
            assert process.wait(30) == 0
            after = successor(tmp_path)
            assert found(after.adopt()) == [('f', b'x')]
            after.close()


class TestStatus:
    def look(self, journal: Journal) -> list[Waiting]:
        return everything(journal.root)

    def test_nothing_waits_where_nothing_is(self, tmp_path: Path) -> None:
        assert everything(tmp_path / 'nowhere') == []

    def test_each_state_is_told(self, journal: Journal) -> None:
        add(journal, 'waits', b'12', age=1)
        failed = add(journal, 'failed', b'123', age=2)
        journal.failed(failed, StoragePermissionError('not allowed'))
        journal.failed(failed, ConnectionError())
        add(journal, 'parked', b'', parked=True, age=3)
        waits, fails, parked = self.look(journal)
        assert [each.state for each in (waits, fails, parked)] == ['waiting', 'failed', 'parked']
        assert (waits.size_bytes, waits.destination, waits.live, waits.failure) == (2, DESTINATION, True, None)
        assert fails.failure is not None
        assert (fails.failure.error, fails.failure.attempts) == ('ConnectionError', 2)

    def test_looking_changes_nothing_and_lets_others_adopt(self, tmp_path: Path, journal: Journal) -> None:
        add(journal, 'f', b'x')
        journal.close()
        before = files_below(tmp_path)
        (seen,) = self.look(journal)
        assert not seen.live
        assert files_below(tmp_path) == before
        after = successor(tmp_path)
        assert len(after.adopt()) == 1
        assert self.look(journal)[0].live
        after.close()

    def test_what_was_replaced_is_not_shown_beside_what_came(self, tmp_path: Path, journal: Journal) -> None:
        old = add(journal, 'f', b'old')
        record, data = old.data_path.with_suffix('.intent').read_bytes(), old.data_path.read_bytes()
        journal.replace(old, put(journal, 'f', b'newer'), b'newer')
        old.data_path.with_suffix('.intent').write_bytes(record)
        old.data_path.write_bytes(data)
        assert [each.size_bytes for each in self.look(journal)] == [5]
        journal.close()
        after = successor(tmp_path)
        assert found(after.adopt()) == [('f', b'newer')]
        assert len([name for name in own_files(tmp_path) if name != 'lock']) == 2
        after.close()

    def test_what_another_came_after_is_not_shown_beside_it(self, journal: Journal) -> None:
        first = add(journal, 'f', b'first', age=1)
        add(journal, 'f', b'second', age=2, after=(first.intent.id,))
        assert [each.size_bytes for each in self.look(journal)] == [6]

    def test_a_failure_whose_text_has_odd_characters_is_told(self, journal: Journal) -> None:
        journal.failed(add(journal, 'f', b'x'), OSError('caf\udce9 is closed'))
        (seen,) = self.look(journal)
        assert seen.failure is not None
        assert seen.failure.error == r'caf\udce9 is closed'


class TestRoots:
    def test_each_root_is_known_for_ever(self, tmp_path: Path) -> None:
        state = tmp_path / 'state'
        odd = Path(f'{tmp_path}/caf\udce9\nline')
        for root in (tmp_path / 'one', odd, tmp_path / 'one', state / 'journal'):
            register_root(root, state)
        assert set(known_roots(state)) == {state / 'journal', tmp_path / 'one', odd}

    def test_a_damaged_register_is_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        register_root(tmp_path / 'one', tmp_path)
        (file,) = (tmp_path / 'journals').iterdir()
        file.write_bytes(b'')
        assert known_roots(tmp_path) == [tmp_path / 'journal']
        assert file.name in caplog.text

    def test_a_state_folder_that_cannot_be_written_refuses_no_write(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / 'state').write_text('no folder')
        journal = journal_in(tmp_path)
        assert content_of(add(journal, 'f', b'x')) == b'x'
        assert 'keep cache: path:' in caplog.text
        journal.close()


class TestFailing:
    def test_the_errno_of_the_disk_is_kept(self, tmp_path: Path, journal: Journal) -> None:
        kept = add(journal, 'kept', b'x')
        before = own_files(tmp_path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(StorageIOError, match='note what is to be uploaded') as caught:
                add(journal, 'f', b'x' * 200_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.errno == errno.EFBIG
        assert own_files(tmp_path) == before
        assert content_of(kept) == b'x'

    def test_a_root_that_is_a_file_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        (tmp_path / 'cache').write_text('')
        with pytest.raises(StorageIOError, match='cache/journal') as caught:
            add(journal_in(tmp_path), 'f', b'x')
        assert caught.value.errno == errno.ENOTDIR

    def test_each_failing_sync_leaves_what_was_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of an addition nothing, of a rewrite and a replacement the one before; found whole by the next."""
        for last in range(1, 100):
            folder = tmp_path / f'{last}'
            journal = Journal(folder / 'journal', DESTINATION, SystemClock(), folder / 'state')
            old = add(journal, 'old', b'old')
            expected = [('old', b'old')]
            done = 0
            sync = os.fsync

            def failing(descriptor: int, last: int = last, sync: object = sync) -> None:
                nonlocal done
                done += 1
                if done == last:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                assert callable(sync)
                sync(descriptor)

            try:
                with monkeypatch.context() as patch:
                    patch.setattr(os, 'fsync', failing)
                    add(journal, 'new', b'new')
                    expected = [('new', b'new'), ('old', b'old')]
                    journal.rewrite(old, msgspec.structs.replace(old.intent, path='older'))
                    expected = [('new', b'new'), ('older', b'old')]
                    journal.replace(old, put(journal, 'newer', b'newer'), b'newer')
                    expected = [('new', b'new'), ('newer', b'newer')]
            except StorageIOError:
                assert done >= last
            journal.close()
            after = Journal(folder / 'journal', DESTINATION, SystemClock(), folder / 'state')
            assert found(after.adopt()) == expected, last
            after.close()
            if done < last:
                return
        pytest.fail('it never came to an end')

    def test_a_full_disk_says_what_to_do_and_loses_nothing(self, tmp_path: Path) -> None:
        need_root('a small disk is mounted')
        disk = tmp_path / 'disk'
        disk.mkdir()
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m,mode=700', 'tmpfs', disk], check=True)
        try:
            journal = Journal(disk / 'journal', DESTINATION, SystemClock(), tmp_path / 'state')
            kept = add(journal, 'kept', b'x' * 100_000)
            before = files_below(disk)
            with pytest.raises(StorageNoSpaceError, match='make some, or set cache: path: to another disk') as caught:
                add(journal, 'too large', b'x' * 2_000_000)
            assert caught.value.errno == errno.ENOSPC
            assert files_below(disk) == before
            # Full to the last page, so that not even a record finds room.
            fill(disk / 'filler')
            with pytest.raises(StorageNoSpaceError):
                journal.rewrite(kept, msgspec.structs.replace(kept.intent, path='renamed'))
            with pytest.raises(StorageNoSpaceError):
                journal.replace(kept, put(journal, 'kept', b'new'), b'new')
            journal.failed(kept, OSError('full'))
            (disk / 'filler').unlink()
            assert files_below(disk) == before
            add(journal, 'fits again', b'y')
            journal.close()
            after = Journal(disk / 'journal', DESTINATION, SystemClock(), tmp_path / 'state')
            assert found(after.adopt()) == [('fits again', b'y'), ('kept', b'x' * 100_000)]
            after.close()
        finally:
            subprocess.run(['umount', '-l', disk], check=True)

    def test_the_message_of_a_full_disk_needs_no_full_disk(self, tmp_path: Path) -> None:
        expected = f'no room to stage what is written in {tmp_path}'
        for number in (errno.ENOSPC, errno.EDQUOT):
            with pytest.raises(StorageNoSpaceError, match=expected), local_disk_errors(tmp_path):
                raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ('fields', 'expected'),
    [
        ({}, None),
        ({'absent': True}, ABSENT),
        ({'expected': 'tag'}, Version('tag', True)),
        ({'expected': 'tag', 'expected_strong': False}, Version('tag', False)),
    ],
)
def test_an_intent_says_what_it_is_based_on(journal: Journal, fields: dict[str, object], expected: object) -> None:
    assert put(journal, 'f', b'', **fields).based_on == expected
