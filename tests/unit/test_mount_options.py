"""Mount options as mount(8) and fstab spell them."""

import pytest

from fusefs.transports.options import MountError, MountOptions, TransportKind, parse_options


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('', MountOptions()),
        ('ro', MountOptions(read_only=True)),
        ('ro,rw', MountOptions()),
        (' ro , noexec ', MountOptions(read_only=True, noexec=True)),
        ('noexec,exec', MountOptions()),
        ('noatime', MountOptions(noatime=True)),
        ('default_permissions', MountOptions(default_permissions=True)),
        ('allow_other', MountOptions(allow_other=True, default_permissions=True)),
        ('fsname=my files', MountOptions(fsname='my files')),
        ('transport=auto', MountOptions()),
        ('transport=devfuse', MountOptions(transport=TransportKind.DEVFUSE)),
        ('ro,transport=libfuse', MountOptions(read_only=True, transport=TransportKind.LIBFUSE)),
        ('defaults,nosuid,nodev,relatime', MountOptions()),
        ('_netdev,nofail,noauto,user,x-systemd.automount,x-gvfs-show,comment=mine', MountOptions()),
    ],
)
def test_options_are_read(text: str, expected: MountOptions) -> None:
    assert parse_options(text) == expected


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('alow_other', "did you mean 'allow_other'"),
        ('readonly', "'readonly'"),
        ('zzz', 'known are ro'),
        ('ro=1', "'ro' takes no value"),
        ('nofail=yes', "'nofail' takes no value"),
        ('fsname', 'fsname=NAME'),
        ('fsname=', 'fsname=NAME'),
        ('transport', 'one of auto, devfuse, libfuse'),
        ('transport=fuse', 'one of auto, devfuse, libfuse'),
        ('trasport=libfuse', "did you mean 'transport'"),
        ('suid', 'nosuid'),
        ('dev', 'nodev'),
        ('allow_root', 'allow_other'),
        ('nonempty', 'empty directory'),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_says_what_can(text: str, message: str) -> None:
    with pytest.raises(MountError) as caught:
        parse_options(text)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)
