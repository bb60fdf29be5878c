"""A local mount whose folder a function says, at each use: per user or tenant.

Owns what the function may say. Who keeps the places that it has said, see the manager. Threads: the function is called
on the thread that uses the mount, so that a context variable can tell it who asks.
"""

from collections.abc import Callable

import msgspec

from genro_storage.config import keys
from genro_storage.config.mount_types import LocalDefinition
from genro_storage.errors import StorageConfigError

#: Stands in a definition for a path that is not known before it is used.
UNKNOWN = '/'


class DynamicPath(msgspec.Struct, frozen=True):
    """``definition``: of the mount, with UNKNOWN as its path. ``folder``: what relative paths start from."""

    definition: LocalDefinition
    function: Callable[[], object]
    folder: str

    def resolve(self) -> LocalDefinition:
        """The definition as it is for who asks now. Raises StorageConfigError."""
        where = f'mount {self.definition.name!r}: the function of its path'
        try:
            said = self.function()
        except Exception as error:
            raise StorageConfigError(f'{where} failed ({type(error).__name__})') from error
        try:
            path = keys.folder(keys.Given(said, self.folder))
        except ValueError as error:
            raise StorageConfigError(f'{where}: {keys.mismatch(error, said, secret=False)}') from error
        return msgspec.structs.replace(self.definition, path=path)
