"""A small privacy log to test with: its keys, its writer, entries of exchanges, and a crash."""

import os
from pathlib import Path

import msgspec

from ksz_router.codes import Code
from ksz_router.identifiers import Kbo
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.entry import Entry, Kind, canonical, parse
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing, Tokens, load, make
from ksz_router.privacylog.recovery import scan
from ksz_router.privacylog.slots import file_numbers, file_of
from ksz_router.privacylog.writer import Writer

NOW_NS = 1_795_000_000_000_000_000
"""In November 2026."""
QUARTER, NEXT_QUARTER = "2026Q4", "2027Q1"
NEXT_QUARTER_NS = 1_798_761_600_000_000_000
PERSON, RENUMBERED, USER, OTHER = "85073003328", "85470099750", "00010100105", "00022999719"
SUPPLIER = "00010100173"
NSSO, CPAS, KADASTER = Kbo("0206731645"), Kbo("0206737484"), Kbo("0200881951")
FILE_BYTES = 16 * 4096


class World:
    """A log folder with one slot, and the keys of two quarters."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.keys = folder / "keys"
        self.now_ns = NOW_NS
        for quarter in (QUARTER, NEXT_QUARTER):
            make(self.keys, quarter)
        self.tokens = Tokens(load(self.keys, QUARTER))
        self.slot = self.log / "w0"

    def open(self, *, slot: str = "w0", file_bytes: int = FILE_BYTES, disk: Disk = DISK) -> Writer:
        return Writer.open(
            self.log,
            slot=slot,
            node="router-a",
            keys_folder=self.keys,
            now_ns=self.now_ns,
            file_bytes=file_bytes,
            disk=disk,
        )

    def request(
        self, number: int, *, person: str = PERSON, tokens: Tokens | None = None, **fields: object
    ) -> bytes:
        entry = Entry(
            kind=Kind.REQUEST,
            at_us=self.now_ns // 1000,
            exchange=number.to_bytes(16, "big"),
            service="pension.consult",
            service_version=2,
            requester=NSSO,
            user=self.tokens.user(USER),
            person=(tokens or self.tokens).person(person),
            destinations=(KADASTER,),
            grant="g-1",
            capacity=1,
        )
        return canonical(msgspec.structs.replace(entry, **fields))

    def outcome(self, number: int, code: int = 10001, **fields: object) -> bytes:
        entry = Entry(
            kind=Kind.OUTCOME,
            at_us=self.now_ns // 1000 + 5000,
            exchange=number.to_bytes(16, "big"),
            code=code,
            service="pension.consult",
            service_version=2,
            requester=NSSO,
        )
        return canonical(msgspec.structs.replace(entry, **fields))

    def files(self, slot: str = "w0") -> list[Path]:
        return [file_of(self.log / slot, number) for number in file_numbers(self.log / slot)]

    def frames(self, file: Path) -> list[Frame]:
        found: list[Frame] = []
        scan(file, KeyRing(self.keys), found.append)
        return found

    def entries(self, slot: str = "w0") -> list[Entry]:
        """Everything the files of a slot hold, in order, torn tails left out."""
        frames = [frame for file in self.files(slot) for frame in self.frames(file)]
        return [parse(record) for frame in frames for record in frame.records]


def crash(writer: Writer) -> None:
    """Let go of the slot as the kernel does for a process that was killed: nothing is written."""
    os.close(writer._growing.descriptor)
    os.close(writer._lock)
    writer._closed = True


def filled(world: World) -> None:
    """Exchanges of two workers: 1 to 3 on PERSON, 4 on OTHER, 5 on OTHER with PERSON further."""
    writer = world.open()
    writer.commit([world.request(1), world.request(2, code=int(Code.NO_GRANT))], NOW_NS)
    writer.commit([world.outcome(1, user=world.tokens.user(SUPPLIER))], NOW_NS)
    crash(writer)
    writer = world.open(slot="w1")
    at_us = NOW_NS // 1000 + 7
    replaced = world.tokens.person(PERSON)
    writer.commit(
        [
            world.request(3, person=RENUMBERED, asked=replaced, at_us=at_us, requester=CPAS),
            world.request(4, person=OTHER, at_us=at_us + 1),
            world.request(5, person=OTHER, at_us=at_us + 2, service="family.consult"),
        ],
        NOW_NS,
    )
    further = Entry(
        kind=Kind.FURTHER,
        at_us=at_us + 3,
        exchange=(5).to_bytes(16, "big"),
        person=world.tokens.person(PERSON),
    )
    writer.commit([canonical(further), world.outcome(5), world.outcome(4, 9004)], NOW_NS)
    crash(writer)
