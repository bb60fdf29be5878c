"""The programs that the tests of this folder run, and the Debian packages that have them: programs.txt.

That file is read by .ci/run, which installs what is missing, and by scripts/setup, which names it.
"""

import shutil
from pathlib import Path

from tests.machine import lacks

#: program → Debian packages
PACKAGES = {
    program: packages.split()
    for program, packages in (
        line.split(maxsplit=1) for line in Path(__file__).with_name('programs.txt').read_text().splitlines()
    )
}


def need(*programs: str) -> None:
    """End a test that this machine lacks a program for; say which, and in which Debian packages it is."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = sorted({package for program in missing for package in PACKAGES[program]})
        lacks(f'not installed: {", ".join(missing)} (apt-get install {" ".join(packages)})')
