"""The tree of errors: each one is the builtin that code for files catches, and has an errno."""

import errno
import inspect
import pickle

import pytest

import genro_storage
from genro_storage import errors
from genro_storage.errors import StorageError

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, StorageError) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize(
    ('kind', 'builtin', 'number'),
    [
        (errors.StorageIOError, OSError, errno.EIO),
        (errors.StorageNotFoundError, FileNotFoundError, errno.ENOENT),
        (errors.UnknownMountError, KeyError, errno.ENOENT),
        (errors.StoragePermissionError, PermissionError, errno.EACCES),
        (errors.StorageReadOnlyError, errors.StoragePermissionError, errno.EROFS),
        (errors.StorageConfigError, ValueError, errno.EINVAL),
        (errors.StoragePathError, ValueError, errno.EINVAL),
        (errors.StorageNameTooLongError, errors.StoragePathError, errno.ENAMETOOLONG),
        (errors.StorageExistsError, FileExistsError, errno.EEXIST),
        (errors.StorageIsADirectoryError, IsADirectoryError, errno.EISDIR),
        (errors.StorageNotADirectoryError, NotADirectoryError, errno.ENOTDIR),
        (errors.StorageNotEmptyError, OSError, errno.ENOTEMPTY),
        (errors.StorageConflictError, OSError, errno.ESTALE),
        (errors.StorageTimeoutError, TimeoutError, errno.ETIMEDOUT),
        (errors.StorageUnavailableError, ConnectionError, errno.EIO),
        (errors.StorageNoSpaceError, OSError, errno.ENOSPC),
        (errors.StorageUnsupportedError, NotImplementedError, errno.ENOTSUP),
    ],
)
def test_builtin_and_errno(kind: type[StorageError], builtin: type[Exception], number: int) -> None:
    error = kind('what failed')
    assert isinstance(error, builtin)
    assert error.errno == number


@pytest.mark.parametrize('kind', CLASSES)
def test_each_says_what_it_was_told_and_survives_a_pickle(kind: type[StorageError]) -> None:
    error = kind("mount 'm': what failed")
    assert "mount 'm': what failed" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.args == error.args
    assert again.errno == error.errno


@pytest.mark.parametrize('kind', CLASSES)
def test_each_is_public(kind: type[StorageError]) -> None:
    assert getattr(genro_storage, kind.__name__) is kind
    assert kind.__name__ in genro_storage.__all__


def test_neither_a_timeout_nor_an_outage_is_an_absence() -> None:
    for kind in (errors.StorageTimeoutError, errors.StorageUnavailableError, errors.StorageIOError):
        assert not issubclass(kind, FileNotFoundError)
