"""Editors, and what else changes a file in place, on the mounted tree."""

import sys

import pytest

from tests.mount.places import Place
from tests.mount.tools import need

TEXT = 'one\ntwo\nthree\n'

#: nano on a terminal: waits for what it shows, types, and ends with it. argv: the file.
NANO = r"""
import os, pty, select, signal, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.environ |= {'TERM': 'linux', 'LINES': '24', 'COLUMNS': '80'}
    os.execvp('nano', ['nano', '--ignorercfiles', *sys.argv[1:]])
shown = b''
def until(text):
    global shown
    deadline = time.monotonic() + 20
    while text not in shown:
        ready = select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]
        if not ready:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f'nano did not show {text!r} but {shown!r}')
        shown += os.read(terminal, 65536)
    shown = shown.partition(text)[2]
until(b'Exit')
os.write(terminal, b'zero\r')
until(b'zero')
os.write(terminal, b'\x0f')
until(b'File Name to Write')
os.write(terminal, b'\r')
until(b'Wrote 4 lines')
os.write(terminal, b'\x18')
while True:  # until it closes the terminal
    try:
        os.read(terminal, 65536)
    except OSError:
        break
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize('backupcopy', ['yes', 'no', 'auto'])
@pytest.mark.parametrize('backup', ['backup', 'nobackup'])
def test_vim_saves_and_leaves_nothing_behind(place: Place, backupcopy: str, backup: str) -> None:
    need('vim.tiny')
    place.sh('printf "one\\ntwo\\nthree\\n" > f; chmod 640 f')
    options = f'set backupcopy={backupcopy} {backup} writebackup swapfile fsync backupskip='
    for number in range(2):
        place.sh(f"vim.tiny -u NONE -i NONE -n -es -c '{options}' -c '1s/^/{number}/' -c 'wq' f")
    assert place.stored('f') == b'10one\ntwo\nthree\n'
    assert place.names() == ({'f', 'f~'} if backup == 'backup' else {'f'})
    assert place.sh('stat -c %a f').strip() == '640'


def test_vim_keeps_what_was_typed_in_a_swap_file_and_recovers_it(place: Place) -> None:
    need('vim.tiny')
    place.sh('printf "one\\n" > f')
    place.fails("vim.tiny -u NONE -i NONE -es -c 'set swapfile' -c 'normal otwo' -c 'preserve' -c '!kill -9 $PPID' f")
    assert '.f.swp' in place.names()
    place.sh("vim.tiny -u NONE -i NONE -es -r -c 'wq! recovered' f; rm .f.swp")
    assert place.stored('recovered') == b'one\ntwo\n'


@pytest.mark.parametrize('options', [[], ['--backup']], ids=['plain', 'backup'])
def test_nano_saves(place: Place, options: list[str]) -> None:
    need('nano')
    place.sh('printf "one\\ntwo\\nthree\\n" > f')
    place.tree.run(sys.executable, '-c', NANO, *options, 'f', cwd=place.path)
    assert place.stored('f') == b'zero\n' + TEXT.encode()
    assert place.names() == ({'f', 'f~'} if options else {'f'})


def test_programs_that_write_a_new_file_over_the_old_one_save(place: Place) -> None:
    need('patch')
    place.sh(r"""seq 20 > f; sed -i s/^1$/uno/ f; perl -i.orig -pe 's/^2$/due/' f; cp f g
    sed -i s/^3$/tre/ g; diff -u f g > change || test $? = 1; patch -s f change; cmp f g
    patch -sR f change; sort -rn -o f f; sort -u -o f f; rm g f.orig change
    """)
    expected = sorted(['uno', 'due', *map(str, range(3, 21))])
    assert sorted(place.stored('f').decode().split()) == expected
    assert place.names() == {'f'}


def test_a_file_that_does_not_exist_yet_is_opened_and_saved(place: Place) -> None:
    need('vim.tiny')
    place.sh("mkdir sub; vim.tiny -u NONE -i NONE -es -c 'normal ihello' -c 'wq' sub/new")
    assert place.stored('sub/new') == b'hello\n'
    assert place.names() == {'sub/new'}
