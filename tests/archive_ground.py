"""A log with its order, its tree and its signed checkpoint, and a sealer that stands on them."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.chain import catalog, newest, quarters
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.ordered import Ordered
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.seal import SLOT, Grounds, Sealer
from ksz_router.privacylog.archive.segment import rows_of
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tree.checkpoint import Signer, make_keys
from ksz_router.privacylog.tree.sequence import Sequencer
from ksz_router.privacylog.writer import Writer
from tests.privacylog_world import World

ORIGIN = "log.example/router-a"


class Ground:
    """Everything before the sealer, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder)
        self.archive = folder / "archive"
        self.archive.mkdir(mode=0o700)
        make_keys(folder / "checkpoint-keys", ORIGIN)
        self.signer = Signer(folder / "checkpoint-keys", ORIGIN)
        self.keys = KeyRing(self.world.keys)

    def copied(self, folder: Path) -> "Ground":
        """Return a copy of all of it in another folder, which must not exist."""
        shutil.copytree(self.folder, folder)
        copied, world = copy.copy(self), copy.copy(self.world)
        copied.folder, copied.world, copied.archive = folder, world, folder / "archive"
        world.log, world.slot, world.keys = folder / "log", folder / "log" / "w0", folder / "keys"
        copied.keys = KeyRing(world.keys)
        return copied

    @property
    def now_us(self) -> int:
        return self.world.now_ns // 1000

    def sequence(self) -> int:
        """Order what is new, hash it and sign; return how many leaves there are."""
        sequencer = Sequencer(
            log=self.world.log,
            archive=self.archive,
            last_checkpoint=self.folder / "last-checkpoint",
            keys_folder=self.world.keys,
            signer=self.signer,
            now_ns=self.world.now_ns,
        )
        try:
            while sequencer.cycle(self.world.now_ns).has_more:
                pass
            return sequencer.signed.size
        finally:
            sequencer.close()

    @property
    def records(self) -> list[bytes]:
        """What is sealed, in order, as the write-ahead files hold it."""
        size = self.sealed_leaves()
        with Ordered(self.world.log, self.archive / "order", self.keys) as ordered:
            return [record for taken in ordered.take(0, size) for record in taken.records]

    def open_slot(self) -> Writer:
        """Take the sealer's slot."""
        return self.world.open(slot=SLOT, file_bytes=1 << 20)

    def sealer(
        self,
        writer: Writer,
        *,
        disk: Disk = DISK,
        leaves_max: int = 1 << 18,
        pause: Callable[[], None] = lambda: None,
    ) -> Sealer:
        grounds = Grounds(
            archive=self.archive,
            log=self.world.log,
            keys=self.keys,
            node="router-a",
            origin=ORIGIN,
            vkeys=self.signer.vkeys,
        )
        return Sealer(
            grounds, writer, now_us=self.now_us, disk=disk, leaves_max=leaves_max, pause=pause
        )

    def seal(self, *, leaves_max: int = 1 << 18) -> None:
        """Sequence, and seal all of it as one run of the sealer."""
        self.sequence()
        writer = self.open_slot()
        sealer = self.sealer(writer, leaves_max=leaves_max)
        while sealer.step(self.now_us):
            pass
        writer.close()

    def files(self, kind: str) -> list[SealedFile]:
        return [
            file for quarter in quarters(self.archive)
            for file in catalog(self.archive, quarter, kind).files
        ]  # fmt: skip

    def truth(self) -> list[bytes]:
        """The records of all ``t`` files, in order."""
        return [
            record
            for file in self.files("t")
            for rows in rows_of("t", file_of(self.archive, file.path))
            for record in to_records(rows)
        ]

    def sealed_leaves(self) -> int:
        found = newest(self.archive)
        return found.sealed_leaves if found else 0
