"""How long the parts of an upload to Google are."""

import pytest

from genro_storage.backends.gcs_requests import _part_bytes

MIB = 1 << 20


@pytest.mark.parametrize(
    ('size_bytes', 'expected'),
    [
        (0, 8 * MIB),
        (1024 * MIB, 8 * MIB),
        (1024 * MIB + 1, 16 * MIB),
        (5 * 1024 * MIB, 40 * MIB),
        (8 * 1024 * MIB, 64 * MIB),
        (5 << 40, 64 * MIB),
    ],
)
def test_parts_of_large_files_are_longer_up_to_a_bound(size_bytes: int, expected: int) -> None:
    assert _part_bytes(size_bytes) == expected
    assert expected % (256 << 10) == 0  # as Google wants
