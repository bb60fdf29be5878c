"""The block cache against a dictionary: two processes' caches, restarts, damage, eviction, bytes removed by hand."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from genro_storage.cache import eviction
from genro_storage.cache.blocks import BLOCK_BYTES, BlockKey
from genro_storage.cache.disk import DiskBlockCache
from genro_storage.cache.memory import MemoryBlockCache
from genro_storage.cache.tiered import TieredBlockCache
from genro_storage.testing.clock import ManualClock

FILES = 4
NUMBERS = (0, 1, 2, 9)
#: Block 9 is the short end of each file.
SHORT_BYTES = 1000

numbers = st.sampled_from(NUMBERS)
files = st.integers(0, FILES - 1)
sides = st.integers(0, 1)


def key(file: int, number: int) -> BlockKey:
    return BlockKey('destination', f'{file}', 'version', number)


def content(file: int, number: int) -> bytes:
    return bytes([file * 16 + number + 1]) * (SHORT_BYTES if number == 9 else BLOCK_BYTES)


class _Cache(RuleBasedStateMachine):
    """What both kinds share. The model knows which blocks must be there; of others a miss is as good."""

    limit_bytes = 1 << 30

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix='block-cache-')) / 'blocks'
        self.clock = ManualClock()
        self.sure: set[BlockKey] = set()
        self.put_once: set[BlockKey] = set()
        self.disks = [self._new_disk() for _ in range(2)]
        self.caches = [self._new_tiers(disk) for disk in self.disks]

    def teardown(self) -> None:
        if hasattr(self, 'root'):
            for cache in self.caches:
                cache.close(10)
            shutil.rmtree(self.root.parent)

    @rule(side=sides, file=files, number=numbers)
    def put(self, side: int, file: int, number: int) -> None:
        block = content(file, number)
        self.caches[side].put(key(file, number), block)
        assert self.caches[side].flush(10)
        self.put_once.add(key(file, number))
        self.remember(key(file, number))

    @rule(side=sides, file=files, number=numbers)
    def get(self, side: int, file: int, number: int) -> None:
        found = self.caches[side].get(key(file, number))
        if found is None:
            assert key(file, number) not in self.sure
        else:
            assert found == content(file, number)
            assert key(file, number) in self.put_once

    @rule(side=sides)
    def restart(self, side: int) -> None:
        assert self.caches[side].close(10)
        self._begin_again(side)

    @rule(side=sides)
    def killed(self, side: int) -> None:
        # Nothing is given back and nothing is closed in order; the descriptors go with the process.
        self.disks[side]._files.close()
        self._begin_again(side)

    @rule(seconds=st.sampled_from([1, 61, 90_000]))
    def time_goes_by(self, seconds: int) -> None:
        self.clock.advance(seconds)

    def remember(self, put: BlockKey) -> None:
        """A block was put."""

    def _begin_again(self, side: int) -> None:
        self.disks[side] = self._new_disk()
        self.caches[side] = self._new_tiers(self.disks[side])

    def _new_disk(self) -> DiskBlockCache:
        return DiskBlockCache(self.root, self.limit_bytes, clock=self.clock)

    def _new_tiers(self, disk: DiskBlockCache) -> TieredBlockCache:
        return TieredBlockCache(MemoryBlockCache(2 * BLOCK_BYTES), disk)


class SoundDisk(_Cache):
    """With room for all and no damage, everything that was put is there, for both."""

    def remember(self, put: BlockKey) -> None:
        self.sure.add(put)

    @rule(side=sides, file=files)
    def hand_out(self, side: int, file: int) -> None:
        size_bytes = 2 * BLOCK_BYTES
        complete = self.disks[side].verify_file(*key(file, 0)[:3], size_bytes)
        # No block is short and last, so no file is ever complete at this size but one of blocks 0 and 1 alone.
        blocks = {block.number for block in self.sure if block.path == f'{file}'}
        assert complete == (blocks == {0, 1})


class HarmedDisk(_Cache):
    """With little room and much damage, whatever is found is right, and the bound holds."""

    limit_bytes = 6 * (BLOCK_BYTES + 4096)
    harm_bytes = 0

    @precondition(lambda self: any(self.root.glob('*/*')))
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        # Verified once for as long as it is open, so the damage comes while nobody has it open.
        for disk in self.disks:
            disk._files.close()
        path = data.draw(st.sampled_from(sorted(self.root.glob('*/*'))))
        size_bytes = path.stat().st_size
        if not size_bytes:
            return
        how = data.draw(st.sampled_from(['flip', 'flip at a block', 'cut', 'remove', 'zeros']))
        if how == 'remove':
            path.unlink()
            return
        self.harm_bytes += 4096  # a page, if it hits a hole
        at = data.draw(st.integers(0, size_bytes - 1))
        if how == 'flip at a block':
            at = at // BLOCK_BYTES * BLOCK_BYTES
        with path.open('r+b') as file:
            if how == 'cut':
                file.truncate(at)
                return
            file.seek(at)
            found = file.read(512)
            file.seek(at)
            file.write(bytes(len(found)) if how == 'zeros' else bytes([found[0] ^ 0x40]))

    @rule()
    def everything_is_removed_by_hand(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    @rule(size_bytes=st.integers(1, 3 * BLOCK_BYTES))
    def somebody_else_evicts(self, size_bytes: int) -> None:
        if self.root.exists():
            eviction.evict(self.root, size_bytes, keep='')

    @invariant()
    def the_bound_holds(self) -> None:
        if hasattr(self, 'root') and self.root.exists():
            total = sum(file.size_bytes for file in eviction.walk(self.root))
            assert total <= self.limit_bytes + 2 * (self.limit_bytes // 64) + self.harm_bytes


TestSoundDisk = SoundDisk.TestCase
TestHarmedDisk = HarmedDisk.TestCase
TestSoundDisk.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestHarmedDisk.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
