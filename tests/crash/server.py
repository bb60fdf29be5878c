"""An S3 server that is killed and started again with the data that it had, at the same address. Not thread-safe."""

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import servers
from tests.servers import S3Server


class RestartingServer:
    """SeaweedFS as the other tests have it, below a folder; runs while it is entered, but for kill()."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / 'server'
        names = ('master', 'master.grpc', 'volume', 'volume.grpc', 'filer', 'filer.grpc', 's3', 's3.grpc')
        self._ports = dict(zip(names, servers.free_ports(len(names)), strict=True))
        self._config = self._folder / 's3.json'
        self._process: subprocess.Popen[bytes] | None = None
        self.server = S3Server(f'http://127.0.0.1:{self._ports["s3"]}')

    def __enter__(self) -> Self:
        (self._folder / 'data').mkdir(parents=True)
        identity = {
            'name': 'tester',
            'credentials': [{'accessKey': S3Server.key, 'secretKey': S3Server.secret}],
            'actions': ['Admin', 'Read', 'Write', 'List', 'Tagging'],
        }
        self._config.write_text(json.dumps({'identities': [identity]}))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self.server.close()
        servers._remove_sockets(self._ports)

    def start(self) -> None:
        """Start it, and wait until it stores objects."""
        log = self._folder / 'weed.log'
        with log.open('ab') as output:
            self._process = subprocess.Popen(
                [servers._find_weed(), *servers._weed_arguments(self._folder / 'data', self._config, self._ports)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env={**os.environ, 'GOMEMLIMIT': '256MiB'},
                start_new_session=True,
            )
        servers._await(self.server, self._process, log)

    def kill(self) -> None:
        """SIGKILL; nothing to kill is no error."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
