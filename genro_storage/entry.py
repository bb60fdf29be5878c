"""Plain values that every layer speaks: entries of a directory, versions of a file, extents of bytes.

Immutable and without I/O. msgspec structs rather than dataclasses: they are made by the ten thousand in a listing,
and cost 0.1 µs each where a frozen dataclass costs 0.6.
"""

import enum
from collections.abc import Mapping

import msgspec


class Kind(enum.Enum):
    """What an entry is, links followed. OTHER: a FIFO, a socket, a device or a link to nowhere."""

    FILE = 'file'
    DIRECTORY = 'directory'
    OTHER = 'other'


class Version(msgspec.Struct, frozen=True, gc=False):
    """Identifies the content of a file: equal versions mean equal bytes.

    ``strong``: an ETag, generation or counter, which every change changes. Weak: made of (mtime_ns, size), which a
    change of the same size within the clock's grain can leave as it was.
    """

    tag: str
    strong: bool

    @classmethod
    def weak(cls, mtime_ns: int, size_bytes: int) -> 'Version':
        """The version of a file on a backend that has no better one."""
        return cls(f'{mtime_ns}-{size_bytes}', strong=False)


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """What is stored of a file beside its bytes, for who shows it as stat(2) does; None: that is not.

    ``mode`` is st_mode as a whole, with the bits of the type where they were stored.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    rdev: int | None = None

    def changed(self, changes: 'Attributes') -> 'Attributes':
        """These, with what is not None in others."""
        given = {name: value for name in self.__struct_fields__ if (value := getattr(changes, name)) is not None}
        return msgspec.structs.replace(self, **given)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One name in a directory and what is known of it. ``name`` is ``''`` for the root of a mount.

    ``attributes`` and ``metadata`` are None where nobody has told: listings of object stores do not.
    """

    name: str
    kind: Kind
    size_bytes: int = 0
    mtime_ns: int = 0
    version: Version | None = None
    attributes: Attributes | None = None
    #: The user metadata that they were read from.
    metadata: Mapping[str, str] | None = None
    #: What a copy has to be told to lie as it does, where a store has several ways to keep an object; '' for nothing.
    storage_class: str = ''

    @property
    def modified_ns(self) -> int:
        """Its modification time: that which was stored, or else when the backend got it."""
        stored = self.attributes.mtime_ns if self.attributes is not None else None
        return self.mtime_ns if stored is None else stored

    @property
    def is_directory(self) -> bool:
        """Whether it has entries of its own."""
        return self.kind is Kind.DIRECTORY

    @property
    def is_file(self) -> bool:
        """Whether it has bytes to read."""
        return self.kind is Kind.FILE


class Extent(msgspec.Struct, frozen=True, gc=False, order=True):
    """A run of bytes: ``size_bytes`` of them from ``offset``."""

    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        """The offset of the first byte behind it."""
        return self.offset + self.size_bytes


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Room on a backend, in bytes, as statvfs(3) means them."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
