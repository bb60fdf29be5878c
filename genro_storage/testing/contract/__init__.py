"""What every Backend must do: a suite of tests to be inherited with a ``backend`` fixture::

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def backend(self) -> Iterator[Backend]:
            backend = MyBackend(...)  # an empty place
            yield backend
            backend.close()

Cases follow the declared capabilities; where one says that something is not there, the suite asserts the documented
behaviour without it, so that no test is skipped. A backend that can only be read has a suite of its own: see reading.
One that asks a server has a second one, for when the network fails: see failing.
"""

from genro_storage.testing.contract.arranging import ArrangingContract
from genro_storage.testing.contract.asking import agree, as_listed, names, read, write
from genro_storage.testing.contract.contending import ContendingContract, at_once
from genro_storage.testing.contract.copying import CopyingContract
from genro_storage.testing.contract.describing import DescribingContract
from genro_storage.testing.contract.failing import FailingContract
from genro_storage.testing.contract.looking import LookingContract
from genro_storage.testing.contract.moving import MovingContract
from genro_storage.testing.contract.putting import PuttingContract
from genro_storage.testing.contract.reading import TREE, ReadOnlyContract
from genro_storage.testing.contract.uploading import UploadingContract

__all__ = [
    'TREE',
    'ArrangingContract',
    'BackendContract',
    'ContendingContract',
    'CopyingContract',
    'DescribingContract',
    'FailingContract',
    'LookingContract',
    'MovingContract',
    'PuttingContract',
    'ReadOnlyContract',
    'UploadingContract',
    'agree',
    'as_listed',
    'at_once',
    'names',
    'read',
    'write',
]


class BackendContract(
    LookingContract,
    PuttingContract,
    ArrangingContract,
    CopyingContract,
    UploadingContract,
    MovingContract,
    DescribingContract,
    ContendingContract,
):
    """All of it. ``uploads_in_parts``, ``copies_parts`` and ``moves_in_steps`` say which protocols beside Backend.

    What the server of the tests does otherwise than was declared is said by attributes of each part.
    """
