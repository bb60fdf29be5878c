"""What every Backend must do: a suite of tests to be inherited with a ``backend`` fixture.

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def backend(self) -> Iterator[Backend]:
            backend = MyBackend(...)  # an empty place
            yield backend
            backend.close()

Cases follow the declared capabilities; where one says that something is not there, the suite asserts the documented
behaviour without it, so that no test is skipped.
"""

from genro_storage.testing.contract.arranging import ArrangingContract
from genro_storage.testing.contract.asking import names, read, write
from genro_storage.testing.contract.looking import LookingContract
from genro_storage.testing.contract.putting import PuttingContract

__all__ = ['ArrangingContract', 'BackendContract', 'LookingContract', 'PuttingContract', 'names', 'read', 'write']


class BackendContract(LookingContract, PuttingContract, ArrangingContract):
    """All of it."""
