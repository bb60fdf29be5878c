"""The definitions of mounts that nothing can be written to.

Owns what they have in common: ``permissions`` is readonly, and saying otherwise is a mistake that is told. Threads:
values, never changed.
"""

from collections.abc import Iterator
from typing import ClassVar

from genro_storage.config.definitions import Definition, Permissions


class ReadOnlyDefinition(Definition, frozen=True, kw_only=True):
    """Of a type that can only be read."""

    fixed: ClassVar[frozenset[str]] = frozenset({'permissions'})

    permissions: Permissions = Permissions.READONLY

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if self.permissions is not Permissions.READONLY:
            yield 'permissions', f'expected readonly, or nothing: a mount of type {self.type} can only be read'
