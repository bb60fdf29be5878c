"""A bucket behind a fault proxy, and the ways to read it."""

import os
import uuid
from contextlib import ExitStack
from typing import Any

from genro_storage import config
from genro_storage.backends import registry
from genro_storage.backends.base import Backend
from genro_storage.runtime import SystemClock
from tests.faults.fault_proxy import FaultProxy
from tests.mount.mounted import s3_definition
from tests.servers import S3Server

MIB = 1 << 20
#: Long for loopback, short for a test that waits for it.
TIMEOUT_S = 1.0
#: For a test that does not: on a busy machine even loopback takes its time.
PATIENT_S = 30.0


class Sick:
    """A bucket behind the proxy."""

    def __init__(self, server: S3Server, proxy: FaultProxy, bucket: str, cleanup: ExitStack) -> None:
        self.server = server
        self.proxy = proxy
        self.bucket = bucket
        self._cleanup = cleanup

    def definition(self, name: str = 'sick', timeout_s: float = TIMEOUT_S, **keys: Any) -> dict[str, Any]:
        """Of a mount of the bucket, through the proxy."""
        return s3_definition(
            self.server, self.bucket, name=name, **{'endpoint_url': self.proxy.url, 'timeout': timeout_s, **keys}
        )

    def backend(self, driver: str, timeout_s: float = TIMEOUT_S) -> Backend:
        """As the library makes it: guarded."""
        (definition,) = config.load([self.definition(timeout_s=timeout_s, driver=driver)]).mounts
        backend = registry.create(definition, SystemClock())
        self._cleanup.callback(backend.close)
        return backend

    def put(self, data: bytes, key: str = '') -> str:
        """Store an object past the proxy; its key, which no other test has."""
        key = key or f'object-{uuid.uuid4().hex[:12]}'
        self.server.put(self.bucket, key, data)
        return key

    def new(self, size_bytes: int, ending: str = '') -> tuple[str, bytes]:
        """An object of random bytes: its key and content."""
        data = os.urandom(size_bytes)
        return self.put(data, f'object-{uuid.uuid4().hex[:12]}{ending}'), data


#: The quick driver's own requests serve what obstore cannot, such as a key with a control character.
ENDINGS = {'obstore': '', 'signed': '-\x01', 'fsspec': ''}


class Reading:
    """One way to read objects: a driver, and a key that makes it take the way that is meant."""

    def __init__(self, sick: Sick, way: str) -> None:
        self.sick = sick
        self.proxy = sick.proxy
        self.way = way
        self._driver = 'obstore' if way == 'signed' else way

    def backend(self, timeout_s: float = PATIENT_S) -> Backend:
        return self.sick.backend(self._driver, timeout_s)

    def new(self, size_bytes: int) -> tuple[str, bytes]:
        return self.sick.new(size_bytes, ENDINGS[self.way])
