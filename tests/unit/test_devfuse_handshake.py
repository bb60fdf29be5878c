"""INIT: what is offered and what is agreed on."""

import errno
import mmap
import struct

import pytest

from fusefs.transports.devfuse.abi import InitFlag
from fusefs.transports.devfuse.handshake import WANTED, HandshakeError, answer_init

ALL_FLAGS = 0xFFFFFFFF


def init(
    major: int, minor: int, readahead: int = 131072, flags: int = ALL_FLAGS, opcode: int = 26, flags2: int = 0
) -> memoryview:
    body = struct.pack('=IIIII', major, minor, readahead, flags, flags2) + bytes(44)
    return memoryview(struct.pack('=IIQQIIIHH', 40 + len(body), opcode, 5, 0, 0, 0, 0, 0, 0) + body)


def test_the_lower_minor_and_the_smaller_readahead_are_agreed_on() -> None:
    request = init(7, 38, readahead=65536)
    answer = answer_init(request, len(request))
    assert answer.agreed
    assert struct.unpack_from('=IiQ', answer.message) == (80, 0, 5)
    major, minor, readahead, _, background, congestion, write, gran, pages, *_ = struct.unpack_from(
        '=IIIIHHIIHH', answer.message, 16
    )
    assert (major, minor, readahead) == (7, 38, 65536)
    assert (background, congestion) == (4096, 3072)
    assert (write, gran, pages) == (1 << 20, 1, (1 << 20) // mmap.PAGESIZE)


def test_a_newer_kernel_is_answered_with_the_minor_that_is_known_here() -> None:
    request = init(7, 99)
    assert struct.unpack_from('=II', answer_init(request, len(request)).message, 16) == (7, 45)


def agreed_flags(offered: int) -> int:
    request = init(7, 45, flags=offered)
    return int(struct.unpack_from('=I', answer_init(request, len(request)).message, 28)[0])


def test_only_flags_that_the_kernel_offers_are_asked_for() -> None:
    assert agreed_flags(ALL_FLAGS) == WANTED
    assert agreed_flags(InitFlag.BIG_WRITES) == InitFlag.BIG_WRITES
    assert agreed_flags(0) == 0


@pytest.mark.parametrize('bit', [12, 16, 20], ids=['AUTO_INVAL_DATA', 'WRITEBACK_CACHE', 'POSIX_ACL'])
def test_flags_that_would_break_promises_are_never_asked_for(bit: int) -> None:
    assert not agreed_flags(ALL_FLAGS) & 1 << bit


DIRECT_IO_ALLOW_MMAP, PASSTHROUGH = 1 << 4, 1 << 5


def passthrough(flags: int, flags2: int, length: int | None = None) -> tuple[bool, int, int]:
    """Whether files can be handed over, and the second word of flags and the stack depth that are answered."""
    request = init(7, 45, flags=flags, flags2=flags2)
    answer = answer_init(request, length or len(request))
    return answer.passthrough, *struct.unpack_from('=II', answer.message, 48)


def test_passthrough_and_mappings_beside_direct_io_are_asked_for_where_the_kernel_offers_them() -> None:
    assert passthrough(ALL_FLAGS, 0xFFFFFFFF) == (True, PASSTHROUGH | DIRECT_IO_ALLOW_MMAP, 1)
    assert passthrough(ALL_FLAGS, PASSTHROUGH) == (True, PASSTHROUGH, 1)
    assert passthrough(ALL_FLAGS, 0xFFFFFFFF & ~PASSTHROUGH) == (False, DIRECT_IO_ALLOW_MMAP, 0)
    assert passthrough(ALL_FLAGS, 0) == (False, 0, 0)


def test_without_a_second_word_there_is_no_passthrough() -> None:
    assert passthrough(ALL_FLAGS & ~InitFlag.INIT_EXT, PASSTHROUGH) == (False, 0, 0)
    assert passthrough(ALL_FLAGS, PASSTHROUGH, length=40 + 16) == (False, 0, 0)


def test_a_newer_major_is_answered_with_ours_and_init_comes_again() -> None:
    request = init(8, 0)
    answer = answer_init(request, len(request))
    assert not answer.agreed
    assert answer.error is None
    assert struct.unpack_from('=IiQII', answer.message) == (80, 0, 5, 7, 0)


@pytest.mark.parametrize('version', [(7, 30), (6, 99)])
def test_an_old_kernel_is_refused_and_the_error_names_both_versions(version: tuple[int, int]) -> None:
    request = init(*version)
    answer = answer_init(request, len(request))
    assert struct.unpack('=IiQ', answer.message) == (16, -errno.EPROTO, 5)
    assert answer.error is not None
    assert f'{version[0]}.{version[1]}' in str(answer.error)
    assert '7.31' in str(answer.error)


def test_the_oldest_kernel_that_is_good_enough_is_served() -> None:
    request = init(7, 31)
    assert answer_init(request, len(request)).agreed


def test_anything_but_init_first_is_an_error() -> None:
    request = init(7, 45, opcode=3)
    with pytest.raises(HandshakeError, match='opcode 3'):
        answer_init(request, len(request))
    with pytest.raises(HandshakeError, match='10 bytes'):
        answer_init(request, 10)
