"""A log with its order, its tree and its signed checkpoint, and a sealer that stands on them."""

from collections.abc import Callable
from pathlib import Path

from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.chain import catalog, newest, quarters
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.seal import SLOT, SLOT_FILE_BYTES, Grounds, Sealer
from ksz_router.privacylog.archive.segment import rows_of
from ksz_router.privacylog.durable import DISK, Disk, write_over
from ksz_router.privacylog.frame import FrameCipher, begin_of, frames
from ksz_router.privacylog.header import PAGE, parse_file_header
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.slots import file_numbers, opened, slot_folders
from ksz_router.privacylog.slots import file_of as wal_of
from ksz_router.privacylog.tree.checkpoint import Signer, make_keys
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import leaf_hashes
from ksz_router.privacylog.tree.order import Line
from ksz_router.privacylog.tree.order_writer import OrderWriter
from ksz_router.privacylog.tree.salts import Salts
from ksz_router.privacylog.writer import Writer
from tests.privacylog_world import World

ORIGIN = "log.example/router-a"


class Ground:
    """Everything before the sealer, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.archive = folder / "archive"
        self.archive.mkdir(mode=0o700)
        make_keys(folder / "checkpoint-keys", ORIGIN)
        self.signer = Signer(folder / "checkpoint-keys", ORIGIN)
        self.keys = KeyRing(self.world.keys)
        self.records: list[bytes] = []
        """Every leaf so far, in order."""

    @property
    def now_us(self) -> int:
        return self.world.now_ns // 1000

    def sequence(self) -> int:
        """Order what is new, hash it and sign; return how many leaves there are."""
        orders = OrderWriter(self.archive / "order", 0)
        levels = Levels(self.archive / "tree")
        for folder in slot_folders(self.world.log):
            for number in file_numbers(folder):
                self._order_file(folder, number, orders, levels)
        levels.flush()
        note = self.signer.sign(levels.size, levels.root(levels.size), self.now_us // 1_000_000)
        write_over(self.archive / "tree" / "checkpoint", note)
        size = levels.size
        levels.close()
        orders.close()
        return size

    def _order_file(self, folder: Path, number: int, orders: OrderWriter, levels: Levels) -> None:
        last = orders.last_places().get(folder.name)
        if last is not None and number < last.file:
            return
        with opened(wal_of(folder, number)) as read:
            header = parse_file_header(read(0, PAGE))
            place = begin_of(header)
            if last is not None and number == last.file:
                place = last.end_place
            keys = self.keys.named(header.key_id, header.commitment)
            cipher = FrameCipher(keys.frames, header.salt)
            found = list(frames(read, header, cipher, place))
        if not found:
            return
        records = [record for frame in found for record in frame.records]
        salts = Salts(keys.commit).run(levels.size, len(records))
        end = found[-1].end
        orders.append(
            [
                Line(
                    folder.name, number, header.key_id, place.offset, end.offset,
                    found[0].number, end.frame, place.crc, end.crc, place.next_record,
                    len(records), levels.size, end.is_last,
                )
            ]
        )  # fmt: skip
        levels.append(leaf_hashes(salts, records))
        self.records += records

    def open_slot(self) -> Writer:
        """Take the sealer's slot."""
        return self.world.open(slot=SLOT, file_bytes=SLOT_FILE_BYTES)

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
