"""Going to the background: what the caller is told, and where the log goes."""

import logging
import os
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs import daemon


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


def in_background(body: str) -> tuple[str, float]:
    """Run a serve() in the background, from a process of its own; what that printed, and for how long it took."""
    program = textwrap.dedent(
        """
        import os, sys, time
        from fusefs.daemon import run_in_background
        def serve(on_ready):
        {body}
        print('answer:', run_in_background(serve), flush=True)
        """
    ).format(body=textwrap.indent(textwrap.dedent(body), '    '))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, timeout=30, check=True, cwd=Path.cwd()
    )
    return done.stdout, time.monotonic() - started


def test_the_caller_returns_once_it_is_ready_and_the_output_ends_there() -> None:
    output, took_s = in_background("""
        on_ready()
        print('not seen')
        time.sleep(5)
    """)
    assert output == 'answer: None\n'
    assert took_s < 4


def test_the_caller_is_told_what_went_wrong() -> None:
    assert in_background("raise OSError('the disk is on fire')")[0] == 'answer: the disk is on fire\n'
    assert in_background('raise KeyboardInterrupt')[0] == 'answer: KeyboardInterrupt\n'


def test_the_caller_is_told_of_an_end_without_a_word() -> None:
    for body in ('pass', 'os._exit(3)', 'os.kill(os.getpid(), 9)'):
        assert in_background(body)[0] == 'answer: the background process ended without a word\n'


def test_what_goes_wrong_later_is_no_answer_any_more() -> None:
    output, _ = in_background("""
        on_ready()
        raise OSError('later')
    """)
    assert output == 'answer: None\n'


def test_the_background_process_holds_no_folder_and_is_no_child_of_the_terminal(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    in_background(f"""
        on_ready()
        open({str(out)!r}, 'w').write(f'{{os.getcwd()}} {{os.getsid(0) == os.getpid()}}')
    """)
    deadline = time.monotonic() + 10
    while not (out.exists() and out.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert out.read_text() == '/ True'


@pytest.mark.parametrize(
    ('environ', 'expected'),
    [
        ({}, '/home/ann/.local/state/genro-storage/mount.log'),
        ({'XDG_STATE_HOME': '/var/ann'}, '/var/ann/genro-storage/mount.log'),
        ({'XDG_STATE_HOME': 'relative'}, '/home/ann/.local/state/genro-storage/mount.log'),
        ({'XDG_STATE_HOME': ''}, '/home/ann/.local/state/genro-storage/mount.log'),
    ],
)
def test_the_log_is_in_the_state_folder(environ: dict[str, str], expected: str) -> None:
    assert daemon.log_file(environ, Path('/home/ann')) == Path(expected)


def test_the_log_is_of_the_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / 'state' / 'genro-storage' / 'mount.log'
    before = os.umask(0)
    try:
        daemon.log_to_file(path)
        logging.getLogger('fusefs.x').info('a line')
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text().endswith('INFO fusefs.x: a line\n')


def test_a_log_that_was_readable_by_others_is_not_any_more(tmp_path: Path) -> None:
    path = tmp_path / 'mount.log'
    path.touch(mode=0o644)
    path.chmod(0o644)
    daemon.log_to_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_log_is_bounded_and_its_older_files_are_of_the_user_alone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, 'LOG_BYTES', 500)
    path = tmp_path / 'mount.log'
    before = os.umask(0)
    try:
        daemon.log_to_file(path)
        for number in range(100):
            logging.getLogger('fusefs.x').info('line %d', number)
    finally:
        os.umask(before)
    files = sorted(tmp_path.iterdir())
    assert len(files) == daemon.LOG_FILES + 1
    assert all(file.stat().st_size <= 500 for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
