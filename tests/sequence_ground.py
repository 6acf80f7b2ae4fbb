"""A log that is sequenced: its keys, its sequencer, disks that fail, and what must hold of it."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import scan
from ksz_router.privacylog.slots import file_numbers, file_of, slot_folders
from ksz_router.privacylog.tree.checkpoint import (
    Checkpoint,
    Signer,
    make_keys,
    parse_checkpoint,
)
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import leaf_hash, root_of
from ksz_router.privacylog.tree.note import VerifierKey
from ksz_router.privacylog.tree.order import Order
from ksz_router.privacylog.tree.places import read_line
from ksz_router.privacylog.tree.salts import Salts
from ksz_router.privacylog.tree.sequence import Sequencer
from tests.privacylog_world import World

ORIGIN = "log.example/router-a"


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """A folder on a file system in memory, where there is one."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


class Recording(Signer):
    """Signs, and keeps what was signed: no size may ever have two roots."""

    def __init__(self, folder: Path, origin: str) -> None:
        super().__init__(folder, origin)
        self.roots: dict[int, bytes] = {}

    def sign(self, size: int, root: bytes, at_s: int) -> bytes:
        assert self.roots.setdefault(size, root) == root, "signed twice differently"
        return super().sign(size, root, at_s)


class Sequenced:
    """A log and its archive, as anyone sees them who has the keys."""

    def __init__(
        self,
        log: Path,
        keys: Path,
        archive: Path,
        last_checkpoint: Path,
        vkeys: Sequence[VerifierKey],
    ) -> None:
        self.log = log
        self.archive = archive
        self.last_checkpoint = last_checkpoint
        self._ring = KeyRing(keys)
        self._vkeys = vkeys

    def shown(self) -> Checkpoint:
        """The checkpoint that everybody sees."""
        data = (self.archive / "tree" / "checkpoint").read_bytes()
        return parse_checkpoint(data, self._vkeys)

    def held(self, slot: Path) -> list[bytes]:
        """Every record of a slot."""
        found: list[Frame] = []
        for number in file_numbers(slot):
            scan(file_of(slot, number), self._ring, found.append)
        return [record for frame in found for record in frame.records]

    def ordered(self) -> list[tuple[str, bytes, bytes]]:
        """Slot, record and leaf hash of every leaf, as anyone recomputes them."""
        found: list[tuple[str, bytes, bytes]] = []
        for line in Order(self.archive / "order").lines():
            header, frames = read_line(self.log, self._ring, line)
            salts = Salts(self._ring.named(header.key_id, header.commitment).commit)
            records = [record for frame in frames for record in frame.records]
            assert line.first_leaf == len(found)
            for record in records:
                salt = salts.run(len(found), 1)
                found.append((line.slot, record, leaf_hash(salt, record)))
        return found

    def check(self, *, is_renamed: bool = False) -> int:
        """Everything is a leaf once, in the order of its slot, under the shown checkpoint.

        ``is_renamed``: folders may have other names than when they were ordered.
        """
        checkpoint = self.shown()
        assert (self.archive / "tree" / "checkpoint").read_bytes() == (
            self.last_checkpoint.read_bytes()
        )
        found = self.ordered()
        assert checkpoint.size == len(found)
        assert checkpoint.root == root_of([leaf for _, _, leaf in found])
        levels = Levels.reading(self.archive / "tree")
        assert levels.leaves(0, levels.size) == [leaf for _, _, leaf in found]
        assert levels.check(levels.size) == []
        levels.close()
        for slot in () if is_renamed else slot_folders(self.log):
            mine = [record for name, record, _ in found if name == slot.name]
            assert mine == self.held(slot), "lost, doubled, or out of order"
        leaf_of = {record: number for number, (_, record, _) in enumerate(found)}
        for slot in slot_folders(self.log):
            leaves = [leaf_of[record] for record in self.held(slot)]  # a KeyError: lost
            assert leaves == sorted(leaves), "out of order"
        assert len({record for _, record, _ in found}) == len(found)
        return len(found)


class Ground(World):
    """A log, its keys and its archive, to be sequenced."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.archive = folder / "archive"
        self.last_checkpoint = folder / "last-checkpoint"
        make_keys(folder / "checkpoint-keys", ORIGIN)
        self.signer = Recording(folder / "checkpoint-keys", ORIGIN)
        self._next = 0

    def sequencer(
        self, disk: Disk = DISK, *, pause: Callable[[], None] = lambda: None
    ) -> Sequencer:
        return Sequencer(
            log=self.log,
            archive=self.archive,
            last_checkpoint=self.last_checkpoint,
            keys_folder=self.keys,
            signer=self.signer,
            now_ns=self.now_ns,
            pause=pause,
            disk=disk,
        )

    def records(self, count: int) -> list[bytes]:
        """So many records that were never made before."""
        self._next += count
        return [self.request(n) for n in range(self._next - count, self._next)]

    @property
    def sequenced(self) -> Sequenced:
        """What came of it."""
        return Sequenced(self.log, self.keys, self.archive, self.last_checkpoint, self.signer.vkeys)

    def check(self, *, is_renamed: bool = False) -> int:
        """As :meth:`Sequenced.check`."""
        return self.sequenced.check(is_renamed=is_renamed)

    def ordered(self) -> list[tuple[str, bytes, bytes]]:
        """As :meth:`Sequenced.ordered`."""
        return self.sequenced.ordered()


class Killed(BaseException):
    """The process ended here: nothing of it goes on."""


class Faulty(Disk):
    """Kills at the call number ``at``, in one of these ways.

    ``before`` and ``after`` it took effect; ``torn``: half of what is written; ``power``: before,
    and nothing is left of what was not flushed.
    """

    def __init__(self, at: int, how: str) -> None:
        self._left = at
        self._how = how
        self._unflushed: list[tuple[Path, int, bytes, int]] = []
        self.is_hit = False

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        size = os.fstat(descriptor).st_size
        reader = os.open(file, os.O_RDONLY)
        self._unflushed.append((file, offset, os.pread(reader, len(data), offset), size))
        os.close(reader)
        half = data[: len(data) // 2]
        self._meet(lambda: super(Faulty, self).write(descriptor, half, offset))
        super().write(descriptor, data, offset)
        self._meet_after()

    def flush(self, descriptor: int) -> None:
        self._meet()
        super().flush(descriptor)
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        self._unflushed = [each for each in self._unflushed if each[0] != file]
        self._meet_after()

    def replace(self, partial: Path, file: Path) -> None:
        self._meet()
        super().replace(partial, file)
        self._meet_after()

    def _meet(self, torn: object = None) -> None:
        self._left -= 1
        if self._left or self._how == "after":
            return
        self.is_hit = True
        if self._how == "torn" and callable(torn):
            torn()
        if self._how == "power":
            for file, offset, data, size in self._unflushed[::-1]:
                if file.exists():
                    with file.open("r+b") as stream:
                        stream.seek(offset)
                        stream.write(data)
                        stream.truncate(size)
        raise Killed

    def _meet_after(self) -> None:
        if not self._left and self._how == "after":
            self.is_hit = True
            raise Killed
