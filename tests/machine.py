"""What a machine lacks for a test: an error in CI, a clear message elsewhere. Never silent (pytest runs with -ra)."""

import os
from pathlib import Path
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """End a test that this machine or user cannot run; say what would be needed."""
    if os.environ.get('CI'):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def need_root(purpose: str) -> None:
    """End a test that only root can run, if this is somebody else."""
    if os.geteuid() != 0:
        lacks(f'{purpose}: run the tests as root to have this tested too')


def need_memory(size_bytes: int, purpose: str) -> None:
    """End a test for which this machine has not enough memory to give."""
    available = next(line for line in Path('/proc/meminfo').read_text().splitlines() if line.startswith('MemAvailable'))
    if int(available.split()[1]) << 10 < size_bytes:
        lacks(f'{purpose}: needs {size_bytes >> 30} GiB of available memory')
