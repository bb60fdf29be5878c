"""Compilers, make and Python on the mounted tree."""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.mount.behind import elsewhere
from tests.mount.places import Place
from tests.mount.tools import need
from tests.servers import S3Server

pytestmark = pytest.mark.parametrize('place', ['bucket', 'local'], indirect=True)

MAKEFILE = """
CFLAGS = -O0
program: main.o greet.o
\tcc -o $@ $^
main.o greet.o: greet.h
clean:
\trm -f program *.o
"""
SOURCES = {
    'greet.h': 'void greet(const char *name);\n',
    'greet.c': '#include <stdio.h>\n#include "greet.h"\nvoid greet(const char *name) { printf("hello %s", name); }\n',
    'main.c': '#include "greet.h"\nint main(void) { greet("mount"); return 0; }\n',
    'Makefile': MAKEFILE,
}


def write_project(place: Place, folder: Path) -> None:
    folder.mkdir()
    for name, text in SOURCES.items():
        (folder / name).write_text(text)
    place.sh(f'cp -r {folder} project')


def test_make_builds_a_project_once_and_what_changed_again(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    need('cc', 'make')
    write_project(place, tmp_path / 'project')
    place.sh('cd project; make -s; chmod +x program')
    assert place.sh('cd project; ./program') == 'hello mount'
    assert place.stored('project/program').startswith(b'\x7fELF')
    assert 'up to date' in place.sh('cd project; make')
    # A store may keep whole seconds only, and make asks for a source that is newer than what was built of it.
    place.sh('built=$(date +%s); until test $(date +%s) != $built; do sleep 0.02; done')
    place.sh('cd project; sed -i s/hello/goodbye/ greet.c')
    assert place.sh('cd project; make').splitlines()[0].split()[-1] in {'greet.c', 'greet.o'}
    assert place.sh('cd project; chmod +x program; ./program') == 'goodbye mount'
    with elsewhere(place, s3_server, tmp_path / 'elsewhere') as other:
        assert 'up to date' in other.sh('cd project; make')
    place.sh('cd project; make -s clean')
    assert place.names() == {f'project/{name}' for name in SOURCES}


def test_a_program_with_a_file_open_to_write_becomes_another(place: Place) -> None:
    program = """
import os
fd = os.open('f', os.O_WRONLY | os.O_CREAT)  # Python has it closed by execve(2)
os.write(fd, b'written')
os.execv('/bin/sh', ['sh', '-c', 'cat f'])
"""
    assert place.tree.run(sys.executable, '-c', program, cwd=place.path) == 'written'
    assert place.stored('f') == b'written'


def test_python_imports_and_keeps_what_it_compiled(place: Place) -> None:
    package = """
mkdir -p package/inner; echo 'from . import one' > package/__init__.py; echo 'value = 1' > package/one.py
echo 'from package.one import value; twice = 2 * value' > package/inner/__init__.py
"""
    place.sh(package)
    program = 'import package.inner; print(package.inner.twice, package.one.__spec__.cached)'
    assert place.tree.run(sys.executable, '-c', program, cwd=place.path).split()[0] == '2'
    pyc = {name for name in place.names() if name.endswith('.pyc')}
    assert len(pyc) == 3
    kept = place.stored(next(iter(sorted(pyc))))
    assert place.tree.run(sys.executable, '-c', program, cwd=place.path).split()[0] == '2'
    assert place.stored(next(iter(sorted(pyc)))) == kept
    place.sh("echo 'value = 21' > package/one.py")
    assert place.tree.run(sys.executable, '-c', program, cwd=place.path).split()[0] == '42'


def make_wheel(folder: Path) -> Path:
    """A wheel of a package with a module and a command, as pip installs it without asking anybody."""
    folder.mkdir()
    wheel = folder / 'greeting-1.0-py3-none-any.whl'
    files = {
        'greeting/__init__.py': "def main():\n    print('greetings')\n",
        'greeting/data/words.txt': 'hello\n',
        'greeting-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n',
        'greeting-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        'greeting-1.0.dist-info/entry_points.txt': '[console_scripts]\ngreet = greeting:main\n',
    }
    record = ''.join(f'{name},,\n' for name in files) + 'greeting-1.0.dist-info/RECORD,,\n'
    with zipfile.ZipFile(wheel, 'w') as archive:
        for name, text in (files | {'greeting-1.0.dist-info/RECORD': record}).items():
            archive.writestr(name, text)
    return wheel


def test_pip_installs_into_the_mount_and_upgrades_there(place: Place, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / 'wheels')
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--disable-pip-version-check']
    place.tree.run(*pip, '--target', place.path / 'site', wheel, cwd=place.path)
    assert place.stored('site/greeting/data/words.txt') == b'hello\n'
    program = 'import sys; sys.path.insert(0, "site"); import greeting; greeting.main()'
    assert place.tree.run(sys.executable, '-c', program, cwd=place.path) == 'greetings\n'
    place.tree.run(*pip, '--upgrade', '--target', place.path / 'site', wheel, cwd=place.path)
    assert {'site/bin/greet', 'site/greeting/__init__.py', 'site/greeting-1.0.dist-info/RECORD'} <= place.names()
