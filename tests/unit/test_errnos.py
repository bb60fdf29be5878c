"""Every error has the errno that fits it, and what nobody foresaw has none."""

import errno

import pytest

from fusefs.errnos import errno_of
from genro_storage import errors


def every_error() -> list[type[errors.StorageError]]:
    kinds = [errors.StorageError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return kinds


@pytest.mark.parametrize('kind', every_error())
def test_every_error_of_storage_has_an_errno(kind: type[errors.StorageError]) -> None:
    error = kind.__new__(kind)  # some want more than a text
    assert errno_of(error) == kind.errno
    assert errno_of(error) in errno.errorcode


@pytest.mark.parametrize(
    ('error', 'number'),
    [
        (OSError(errno.EXDEV, 'x'), errno.EXDEV),
        (FileNotFoundError(errno.ENOENT, 'x'), errno.ENOENT),
        (FileNotFoundError('without a number'), errno.ENOENT),
        (BlockingIOError(errno.EAGAIN, 'x'), errno.EAGAIN),
        (TimeoutError(), errno.ETIMEDOUT),
        (NotImplementedError(), errno.ENOSYS),
        (MemoryError(), errno.ENOMEM),
        (UnicodeEncodeError('utf-8', '\udcff', 0, 1, 'surrogate'), errno.EILSEQ),
        (errors.StorageNotFoundError('x'), errno.ENOENT),
        (errors.StorageReadOnlyError('x'), errno.EROFS),
        (errors.StorageConflictError('x'), errno.ESTALE),
        (errors.StorageTimeoutError('x'), errno.ETIMEDOUT),
        (errors.StorageUnavailableError('x'), errno.EIO),
    ],
)
def test_errors_become_their_errno(error: Exception, number: int) -> None:
    assert errno_of(error) == number


@pytest.mark.parametrize(
    'error', [KeyError('x'), ValueError('x'), RuntimeError(), ZeroDivisionError(), OSError('bare')]
)
def test_what_nobody_foresaw_has_none(error: Exception) -> None:
    assert errno_of(error) is None
