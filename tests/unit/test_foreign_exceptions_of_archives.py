"""Exceptions of the libraries beneath archives and repositories: one that comes with a new release is noticed here."""

import lzma
import tarfile
import zipfile
import zlib
from types import ModuleType

import libarchive.exception
import pygit2
import pytest

from genro_storage.backends import archive, tar_archive, zip_archive

# Raised by what writes, and by callbacks that we do not have.
_OF_OTHERS = {zipfile.LargeZipFile, pygit2.Passthrough}


@pytest.mark.parametrize(
    ('module', 'expected'),
    [
        (zipfile, (*archive.NONSENSE, *zip_archive.NONSENSE)),
        (tarfile, (*archive.NONSENSE, *tar_archive.NONSENSE)),
        (zlib, archive.NONSENSE),
        (lzma, archive.NONSENSE),
        (libarchive.exception, (libarchive.ArchiveError,)),
        (pygit2, (KeyError, ValueError, pygit2.GitError)),
    ],
)
def test_each_exception_of_a_library_is_translated(module: ModuleType, expected: tuple[type[Exception], ...]) -> None:
    raised = {each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Exception)}
    own = {each for each in raised if each.__module__.split('.')[0] not in {'builtins', 'genro_storage'}}
    assert own
    assert {each for each in own - _OF_OTHERS if not issubclass(each, expected)} == set()
