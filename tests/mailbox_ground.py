"""What tests of mailboxes stand on: the example's rulebook, a small directory, a log, a lane."""

import contextlib
import hashlib
import io
import shutil
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from ksz_router import cli
from ksz_router.config import Config, PrivacyLog, Tables
from ksz_router.config import Directory as DirectorySettings
from ksz_router.daemon.mailbox_lane import MailboxLane, Manners, Rulebook
from ksz_router.daemon.mailbox_record import SLOT, MailboxRecord
from ksz_router.daemon.mailbox_step import Clocks
from ksz_router.daemon.pacer import Pacer
from ksz_router.daemon.traffic import Traffic
from ksz_router.directory.mailbox import Mailbox, Part, Sender
from ksz_router.directory.mailbox_form import Head
from ksz_router.directory.mailboxes import Mailboxes
from ksz_router.directory.snapshot import Directory
from ksz_router.directory.writer import Writer
from ksz_router.model import Role
from ksz_router.persons import Person
from ksz_router.privacylog.entry import Entry, parse
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing, make
from ksz_router.privacylog.recovery import scan
from ksz_router.privacylog.slots import file_numbers, file_of
from ksz_router.sdk.directory_files import mailbox_of
from tests.directory_files import loaded, number, person

CENTRE, CENTRE_PROGRAM = "0999016460", "00901000101"
REGISTER, REGISTER_PROGRAM = "0999012995", "00901000202"
BANK_URI = "urn:kbo:0999020618"
TOWN, NUMBERS = Role(17, 1), Role(0, 0)
NOW_NS = 1_795_000_000_000_000_000
"""In the last quarter of 2026."""

PEOPLE = [number(998 - 2 * n) for n in range(12)]
STRANGER = number(500)
ROOT = Path(__file__).parents[1]


class Rules(NamedTuple):
    """An activated rulebook and the keys of the log; nobody writes them."""

    store: Path
    signer: Path
    keys: Path


def rules(folder: Path, *edits: tuple[str, str, str]) -> Rules:
    """Make them in ``folder``; an edit is a file of the example, what stands there, what is to."""
    store, key = folder / "rulebook", folder / "signer"
    text = folder / "text"
    shutil.copytree(ROOT / "config" / "rulebook-example", text)
    for name, old, new in edits:
        before = (text / name).read_text(encoding="utf-8")
        assert old in before
        (text / name).write_text(before.replace(old, new, 1), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["rulebook", "build", str(text), "--store", str(store)]) == 0
        assert cli.main(["keys", "signer", "--out", str(key)]) == 0
        (name,) = [path.name for path in (store / "generations").iterdir()]
        assert (
            cli.main(["rulebook", "activate", name, "--store", str(store), "--key", str(key)]) == 0
        )
    make(folder / "keys", "2026Q4")
    return Rules(store, key.with_suffix(".pub"), folder / "keys")


class Ground:
    """One directory with its mailboxes and its log, in a folder of its own."""

    def __init__(self, folder: Path, made: Rules, *, people: Sequence[str] = PEOPLE) -> None:
        self.folder = folder
        self.directory, self.log = folder / "directory", folder / "log"
        self.rules = made
        self.step_s = self._worked_s = 0.0
        """Processor time that each step seems to take."""
        self.now_s = 0.0
        """For who looks whether the router serves somebody, by the slot of its only worker."""
        if not self.directory.exists():
            folder.mkdir(parents=True, exist_ok=True)
            loaded(folder, *map(person, people))
            self.log.mkdir(mode=0o700)
        self.settings = Config(
            tables=Tables(rulebook=str(made.store), directory=str(self.directory)),
            privacy_log=PrivacyLog(path=str(self.log), keys=str(made.keys)),
            directory=DirectorySettings(mailboxes=str(folder / "mailboxes")),
        )

    def clocks(self) -> Clocks:
        """Clocks that go on by a microsecond whenever they are looked at."""
        ticks, ids = count(1), count(1)
        return Clocks(
            monotonic_ns=lambda: next(ticks) * 1000,
            wall_ns=lambda: NOW_NS + next(ticks) * 1000,
            new_ids=lambda many: [
                (NOW_NS // 1_000_000).to_bytes(6, "big")
                + b"\x7f\xff\x80"
                + next(ids).to_bytes(7, "big")
                for _ in range(many)
            ],
        )

    def _worked(self) -> float:
        self._worked_s += self.step_s
        return self._worked_s

    @contextlib.contextmanager
    def lane(self) -> Iterator[tuple[MailboxLane, Mailboxes]]:
        """Open everything as a program does that applies mailboxes."""
        clocks, mailboxes = self.clocks(), Mailboxes(self.folder / "mailboxes")
        writer = Writer.open(self.directory)
        record = MailboxRecord(self.settings, clocks.monotonic_ns, clocks.wall_ns)
        rulebook = Rulebook(
            self.rules.store, self.rules.signer, self.rules.store.with_name("sectoral"), BANK_URI
        )
        manners = Manners(Pacer(self._worked), Traffic([self.log / "w0"], lambda: self.now_s))
        lane = MailboxLane(mailboxes, writer, record, rulebook, clocks, manners=manners)
        try:
            yield lane, mailboxes
        finally:
            lane.close()
            writer.close()
            mailboxes.close()

    def apply(self, *contents: bytes, part_bytes: int = 4096) -> list[Mailbox]:
        """Send mailboxes and have all of them applied; return what came of each."""
        with self.lane() as (lane, mailboxes):
            taken = [send(mailboxes, content, part_bytes) for content in contents]
            while lane.step() is not None:
                pass
            mailboxes.forget_before(0)  # as the program does at its start
            found = [mailboxes.find(mailbox.kbo, mailbox.number) for mailbox in taken]
        return [mailbox for mailbox in found if mailbox is not None]

    def answers(self, kbo: str, mailbox_number: int) -> str:
        """The answer file as it lies there."""
        file = self.folder / "mailboxes" / f"{kbo}-{mailbox_number}.answers.csv"
        return file.read_text(encoding="ascii")

    def persons(self, people: Sequence[str] = (*PEOPLE, STRANGER)) -> list[Person | None]:
        """What the directory holds of some."""
        directory = Directory.open(self.directory)
        try:
            return directory.look_up(people)
        finally:
            directory.close()

    def entries(self) -> list[Entry]:
        """What was recorded of lines, in order."""
        found: list[Entry] = []
        keys = KeyRing(self.rules.keys)

        def visit(frame: Frame) -> None:
            found.extend(map(parse, frame.records))

        slot = self.log / SLOT
        for file in file_numbers(slot) if slot.exists() else ():
            scan(file_of(slot, file), keys, visit)
        return found


def parts(content: bytes, mailbox_number: int, part_bytes: int = 4096) -> list[Part]:
    """The parts of a mailbox, as its sender announces them."""
    return [
        Part(
            number=mailbox_number,
            file_bytes=len(content),
            sha256=hashlib.sha256(content).digest(),
            part_bytes=part_bytes,
            part=begin // part_bytes + 1,
            data=content[begin : begin + part_bytes],
        )
        for begin in range(0, len(content), part_bytes)
    ]


def send(
    mailboxes: Mailboxes,
    content: bytes,
    part_bytes: int = 4096,
    now_ms: int = NOW_NS // 1_000_000,
) -> Mailbox:
    """Send a mailbox whole, by whom its first line names."""
    _, _, kbo, sector, kind, _, digits = content.partition(b"\n")[0].decode().split(",")
    sender, mailbox = Sender(kbo, Role(int(sector), int(kind))), None
    for part in parts(content, int(digits), part_bytes):
        mailbox, _ = mailboxes.receive(sender, part, now_ms)
    assert mailbox is not None
    return mailbox


def of_centre(mailbox_number: int, *rows: str) -> bytes:
    """A mailbox of the centre."""
    return mailbox_of(Head(CENTRE, *_role(TOWN), CENTRE_PROGRAM, mailbox_number), rows)


def of_register(mailbox_number: int, *rows: str) -> bytes:
    """A mailbox of the register of numbers."""
    return mailbox_of(Head(REGISTER, *_role(NUMBERS), REGISTER_PROGRAM, mailbox_number), rows)


def _role(role: Role) -> tuple[int, int]:
    return role.sector, role.type


def inscribe(insz: str, begin: str = "2026-03-01", end: str = "", capacity: int = 2) -> str:
    """A row."""
    return f"{insz},inscribe,{capacity},1,{begin},{end},,,"
