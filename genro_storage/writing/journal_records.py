"""What the journal writes down: intents and failures, and their form on the disk.

Owns the two records and their JSON, behind which small data are, after a line feed. A record of a newer version may
have more keys, which are ignored. Pure.
"""

import re
import secrets
from collections.abc import Callable
from typing import Literal

import msgspec

from genro_storage.backends.base import ABSENT, Expected
from genro_storage.entry import Version
from genro_storage.errors import StoragePathError
from genro_storage.writing.origins import Origin

#: What new_id makes: the only names that the journal takes for its own.
ID = re.compile(r'[0-9a-f]{16}-[0-9a-f]{8}')

_ESCAPED = re.compile(r'%([0-9A-F]{2})')
# What stands for a byte that is not UTF-8 (PEP 383), and the escape itself.
_TO_ESCAPE = re.compile('[\udc80-\udcff%]')
_LOW = 0xDC00


class DamagedRecordError(ValueError):
    """The bytes are no record."""


class Intent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is to be done at the destination, whatever becomes of this process.

    ``put``: the data are to become the file at ``path``. ``remove``: the version ``expected`` at ``path`` is to go, and
    with it the puts in ``after``. ``move``: the directory ``path`` is to become ``target``; the data are the plan.
    ``rename``: the file ``path``, of ``size_bytes`` and in the version ``expected``, is to become ``target``, in place
    of the puts in ``after``. ``upload``: a multipart upload that was begun, to be aborted unless somebody completes it.
    """

    id: str
    kind: Literal['put', 'remove', 'move', 'rename', 'upload']
    #: The mount's name, for people only: where the data go is said by the destination of the journal.
    mount: str
    path: str
    created_ns: int
    #: The id of the intent in whose place this one came; should both be there, only this one counts.
    replaces: str = ''

    # put
    size_bytes: int = 0
    mtime_ns: int | None = None  # only if somebody set it
    metadata: dict[str, str] | None = None
    expected: str | None = None  # None and not absent: whatever is there
    expected_strong: bool = True
    absent: bool = False
    #: (offset, size_bytes) of what is in the expected version alone.
    missing: tuple[tuple[int, int], ...] = ()
    #: The ids of intents for the same path that may have arrived: found there, they are what this one is based on.
    after: tuple[str, ...] = ()
    #: What they are in, if that is another file.
    origin: Origin | None = None
    #: Not sent by itself, only on request: whoever wrote it was told that it failed.
    parked: bool = False

    # move, rename
    target: str = ''
    phase: Literal['copying', 'removing'] = 'copying'

    # upload
    token: str = ''

    @property
    def based_on(self) -> Expected:
        """The condition of the put."""
        if self.absent:
            return ABSENT
        return None if self.expected is None else Version(self.expected, self.expected_strong)

    @property
    def time_ns(self) -> int:
        """When it was first noted, whatever has been rewritten since."""
        return int(self.id.partition('-')[0], 16)

    @property
    def local_bytes(self) -> int:
        """How long the data of a put are at least: up to where the last of them lies that is not missing."""
        end = self.size_bytes
        for offset, size_bytes in sorted(self.missing, reverse=True):
            if offset + size_bytes < end:
                break
            end = min(end, offset)
        return end


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The last error of an intent and how often it was tried, for status."""

    error: str
    attempts: int
    at_ns: int


def new_id(time_ns: int) -> str:
    """An id that no other intent has and that sorts by time."""
    return f'{time_ns:016x}-{secrets.token_hex(4)}'


_encoder = msgspec.json.Encoder()
_END = b'\n'  # between record and data: the encoder makes none, and those in a text are escaped
_intents = msgspec.json.Decoder(Intent)
_failures = msgspec.json.Decoder(Failure)


def encode_intent(intent: Intent, data: bytes | None = None) -> bytes:
    """An intent, and its data if they are to be there too, as bytes.

    Raises StoragePathError for text that stands for no bytes.
    """
    try:
        record = _encoder.encode(_each_text(intent, _escape))
        return record if data is None else b''.join((record, _END, data))
    except UnicodeEncodeError as error:
        raise StoragePathError(f'{intent.mount}:{intent.path!r} has characters that no file name can have') from error


def decode_intent(raw: bytes) -> Intent:
    """The intent that encode_intent has encoded. Raises DamagedRecordError."""
    try:
        return _each_text(_intents.decode(raw.partition(_END)[0]), _unescape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedRecordError(str(error)) from error


def inline_data(raw: bytes) -> bytes | None:
    """The data that are with an intent; None where they are elsewhere, or there are none."""
    _, end, data = raw.partition(_END)
    return data if end else None


def encode_failure(failure: Failure) -> bytes:
    """A failure as bytes; characters that JSON cannot have are shown as escapes, for people."""
    shown = failure.error.encode('utf-8', 'backslashreplace').decode()
    return _encoder.encode(msgspec.structs.replace(failure, error=shown))


def decode_failure(raw: bytes) -> Failure:
    """The inverse of encode_failure. Raises DamagedRecordError."""
    try:
        return _failures.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedRecordError(str(error)) from error


def _each_text(intent: Intent, change: Callable[[str], str]) -> Intent:
    """An intent with all that may hold the bytes of a name changed; paths of other backends are no better than ours."""
    return msgspec.structs.replace(
        intent,
        mount=change(intent.mount),
        path=change(intent.path),
        target=change(intent.target),
        token=change(intent.token),
        expected=None if intent.expected is None else change(intent.expected),
        origin=None
        if intent.origin is None
        else msgspec.structs.replace(intent.origin, path=change(intent.origin.path), tag=change(intent.origin.tag)),
    )


def _escape(text: str) -> str:
    return _TO_ESCAPE.sub(lambda match: f'%{ord(match[0]) & 0xFF:02X}', text)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    value = int(match[1], 16)
    return chr(value if value < 0x80 else _LOW + value)
