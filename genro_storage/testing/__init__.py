"""What a backend must pass, and tools to make one fail. The suite itself, in ``contract``, needs pytest."""

from genro_storage.testing.clock import ManualClock
from genro_storage.testing.faulty import FaultyBackend, Stall
from genro_storage.testing.line import FaultyLine, Flow
from genro_storage.testing.sources import BytesSource

__all__ = ['BytesSource', 'FaultyBackend', 'FaultyLine', 'Flow', 'ManualClock', 'Stall']
