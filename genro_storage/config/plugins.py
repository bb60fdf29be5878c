"""Types of mounts that other packages bring along: the entry points of the group ``genro_storage.backends``.

Owns how they are found. An entry point has the name of the type, and leads to a BackendType. Nothing is imported before
a mount of its type is configured. Threads: safe; what was loaded is remembered, and two threads may both load it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from genro_storage.config.definitions import Definition
from genro_storage.errors import StorageConfigError
from genro_storage.runtime import Clock

if TYPE_CHECKING:
    from genro_storage.backends.base import Backend

GROUP = 'genro_storage.backends'


class BackendType(msgspec.Struct, frozen=True, kw_only=True):
    """A type of mounts. ``definition``: the keys, a Definition whose ``tag`` is the name of the type.

    ``make`` makes a backend of a definition and connects nowhere. It is tried again and given up as its capabilities
    say, and held to its contract by ``genro_storage.testing.contract``.
    """

    definition: type[Definition]
    make: 'Callable[[Any, Clock], Backend]'


_loaded: dict[str, BackendType] = {}


def names() -> list[str]:
    """The types that installed packages have to offer."""
    # Imported when a type is looked for that is not ours: it takes longer than the rest of the library.
    from importlib import metadata

    return sorted({point.name for point in metadata.entry_points(group=GROUP)})


def find(name: str) -> BackendType | None:
    """The type of a name, loaded; None if nobody has it. Raises StorageConfigError if it cannot be loaded."""
    known = _loaded.get(name)
    if known is not None:
        return known
    from importlib import metadata

    points = list(metadata.entry_points(group=GROUP, name=name))
    if not points:
        return None
    point = points[0]
    package = point.dist.name if point.dist is not None else point.value
    if len(points) > 1:
        others = ', '.join(sorted(point.dist.name if point.dist is not None else point.value for point in points))
        raise StorageConfigError(f'type {name!r} is claimed by several packages: {others}; uninstall all but one')
    try:
        found = point.load()
    except Exception as error:
        raise StorageConfigError(
            f'type {name!r} of the package {package} cannot be loaded: {type(error).__name__}: {error}'
        ) from error
    if not isinstance(found, BackendType) or found.definition.__struct_config__.tag != name:
        raise StorageConfigError(
            f'type {name!r} of the package {package} is not usable: expected a BackendType whose definition '
            f'has the tag {name!r}'
        )
    return _loaded.setdefault(name, found)


def of(definition: type[Definition]) -> BackendType | None:
    """The type, loaded already, of a definition."""
    return next((each for each in _loaded.values() if each.definition is definition), None)
