"""Where mailboxes are kept: what is known of each in LMDB, its lines and its answers in files.

    mailboxes/
      data.mdb, lock.mdb            what is known of each: see :class:`Mailbox`
      0999016460-4711.lines         as received; removed when every line has its verdict
      0999016460-4711.answers.csv   the verdicts

A part is durable before it is noted, and noted before it is acknowledged. Nobody else may read
the folder: the lines name persons.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import lmdb
import msgspec
from msgspec.structs import replace

from ksz_router.directory.mailbox import (
    NUMBER_MAX,
    Fault,
    Mailbox,
    MailboxRefused,
    Part,
    Sender,
    State,
    key_of,
    new_mailbox,
    number_in,
    place_key,
)
from ksz_router.directory.mailbox_form import checked
from ksz_router.directory.marks import sync_folder
from ksz_router.directory.packing import DirectoryError
from ksz_router.limits import MIB, mailboxes_receiving_max, mailboxes_unfinished_max
from ksz_router.model import Role

MAP_BYTES = 4 * 1024 * MIB
_GAPS_MAX = 16
_NEWEST_LOOKED_AT = 1_024
_ROOM_BYTES_MIN = 1024 * MIB

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Mailbox).decode


class MailboxesUnusable(DirectoryError):
    """The folder of the mailboxes cannot be read or written; the message says what to do."""


class Mailboxes:
    """The mailboxes of a folder, which is made where it is missing. For several threads.

    Raises:
        MailboxesUnusable: it cannot be used; so says every method that reads or writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._one_at_a_time = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._environment = lmdb.open(
                str(folder), map_size=MAP_BYTES, max_dbs=3, mode=0o600, max_spare_txns=4
            )
            self._known = self._environment.open_db(b"mailboxes")
            self._receiving = self._environment.open_db(b"receiving")
            self._waiting = self._environment.open_db(b"waiting")
        except (lmdb.Error, OSError) as error:
            raise MailboxesUnusable(
                f"{folder}: mailboxes cannot be kept there ({error}); see to its rights and room"
            ) from error

    def close(self) -> None:
        """Give the environment back."""
        self._environment.close()

    @contextmanager
    def _transaction(
        self, table: "lmdb._Database | None" = None, *, write: bool = False
    ) -> Iterator["lmdb.Transaction[bytes]"]:
        try:
            with self._environment.begin(table, write=write) as transaction:
                yield transaction
        except lmdb.Error as error:
            what = "what is known of mailboxes cannot be read or noted"
            raise MailboxesUnusable(f"{self.folder}: {what} ({error}); see to the disk") from error

    def find(self, kbo: str, number: int) -> Mailbox | None:
        """Return what is known of a mailbox."""
        with self._transaction(self._known) as transaction:
            value = transaction.get(key_of(kbo, number))
        return _decode(value) if value is not None else None

    def next_waiting(self) -> Mailbox | None:
        """Return the one whose lines are to be applied next: who was complete first."""
        with self._transaction() as transaction, transaction.cursor(self._waiting) as cursor:
            if not cursor.first():
                return None
            value = transaction.get(cursor.value(), db=self._known)
        assert value is not None, "one that waits is known"
        return _decode(value)

    def waiting(self) -> int:
        """How many are complete and not done."""
        with self._transaction() as transaction:
            return int(transaction.stat(self._waiting)["entries"])

    def gaps(self, kbo: str) -> list[tuple[int, int]]:
        """Return ranges of numbers that a sender left out, among its newest thousand, and 16 of it.

        Both ends are missing; the series begins with the lowest number that was ever received.
        """
        first = key_of(kbo, 0)
        numbers: list[int] = []
        with self._transaction(self._known) as transaction, transaction.cursor() as cursor:
            found = cursor.set_range(key_of(kbo, NUMBER_MAX + 1))
            found = cursor.prev() if found else cursor.last()
            while found and cursor.key() > first and len(numbers) < _NEWEST_LOOKED_AT:
                numbers.append(number_in(cursor.key()))
                found = cursor.prev()
        left_out = [(low + 1, high - 1) for high, low in pairwise(numbers) if high - low > 1]
        return sorted(left_out)[-_GAPS_MAX:]

    def lines_file(self, mailbox: Mailbox) -> Path:
        """Where the lines are."""
        return self.folder / f"{mailbox.kbo}-{mailbox.number}.lines"

    def answers_file(self, mailbox: Mailbox) -> Path:
        """Where the verdicts are."""
        return self.folder / f"{mailbox.kbo}-{mailbox.number}.answers.csv"

    def receive(self, sender: Sender, part: Part, now_ms: int) -> tuple[Mailbox, bool]:
        """Take a part; it is durable on return. Say whether it was here before.

        With the last one the whole is checked, and waits to be applied or is refused for good
        (``state``).

        Raises:
            MailboxRefused: the part is not taken.
            MailboxesUnusable: the disk does not take it; what came of it is not known.
        """
        try:
            with self._one_at_a_time:
                mailbox, is_here = self._announced(sender, part, now_ms)
                if mailbox.state is not State.RECEIVING:
                    return mailbox, True
                if is_here:
                    self._compare(mailbox, part)
                else:
                    self._write(mailbox, part)
                    mailbox = self._note_part(mailbox, part.part)
                if not mailbox.missing:
                    mailbox = self._complete(mailbox, now_ms)
                return mailbox, is_here
        except OSError as error:
            text = f"{self.folder}: the part could not be kept ({error}); see to the disk"
            raise MailboxesUnusable(text) from error

    def take_up(self, mailbox: Mailbox, now_ms: int) -> Mailbox:
        """Note that a run of the program begins with a mailbox or goes on with it."""
        begun_ms = mailbox.begun_ms or now_ms
        return self.note(replace(mailbox, begun_ms=begun_ms, runs=mailbox.runs + 1))

    def note(self, mailbox: Mailbox) -> Mailbox:
        """Make durable how far a mailbox is."""
        key = key_of(mailbox.kbo, mailbox.number)
        with self._transaction(write=True) as transaction:
            transaction.put(key, _encode(mailbox), db=self._known)
            if mailbox.state is State.RECEIVING:
                transaction.put(key, b"", db=self._receiving)
            else:
                transaction.delete(key, db=self._receiving)
            if mailbox.state is State.WAITING:
                transaction.put(place_key(mailbox.place), key, db=self._waiting)
            elif mailbox.place:
                transaction.delete(place_key(mailbox.place), db=self._waiting)
        return mailbox

    def forget_lines(self, mailbox: Mailbox) -> None:
        """Remove the lines of a mailbox that is done: they name persons, and nobody needs them."""
        assert mailbox.state in (State.DONE, State.REFUSED)
        self.lines_file(mailbox).unlink(missing_ok=True)

    def forget_before(self, moment_ms: int) -> int:
        """Forget answers of what was done before, and what was never completed; return how many.

        What is known of the number stays where it was used, so that it is not used again.
        """
        count = 0
        for mailbox in list(self._all()):
            if mailbox.state is State.RECEIVING and mailbox.received_ms < moment_ms:
                with self._transaction(write=True) as transaction:
                    key = key_of(mailbox.kbo, mailbox.number)
                    transaction.delete(key, db=self._known)
                    transaction.delete(key, db=self._receiving)
                self.lines_file(mailbox).unlink(missing_ok=True)
                count += 1
            elif mailbox.state in (State.DONE, State.REFUSED):
                self.forget_lines(mailbox)  # which a kill may have left
                file = self.answers_file(mailbox)
                if mailbox.done_ms < moment_ms and file.exists():
                    file.unlink()
                    count += 1
        self._sweep(moment_ms)
        return count

    def _sweep(self, moment_ms: int) -> None:
        """Remove lines that a kill left before they were known, or after they were no more."""
        for file in self.folder.glob("*.lines"):
            kbo, _, number = file.stem.partition("-")
            with self._one_at_a_time:
                is_old = file.exists() and file.stat().st_mtime_ns < moment_ms * 1_000_000
                if is_old and self.find(kbo, int(number)) is None:
                    file.unlink()

    def _all(self) -> Iterator[Mailbox]:
        with self._transaction(self._known) as transaction, transaction.cursor() as cursor:
            for _, value in cursor:
                yield _decode(value)

    def _announced(self, sender: Sender, part: Part, now_ms: int) -> tuple[Mailbox, bool]:
        """Return the mailbox that a part is of, a new one where it is the first to come.

        Raises:
            MailboxRefused: the part cannot be of any.
        """
        mailbox = self.find(sender.kbo, part.number)
        if (
            mailbox is not None
            and mailbox.state is State.REFUSED
            and (mailbox.sha256 != part.sha256 or mailbox.file_bytes != part.file_bytes)
        ):
            mailbox = None  # it is sent again, mended
        if mailbox is None:
            mailbox = new_mailbox(sender, part, now_ms)
        announced = (part.file_bytes, part.sha256, part.part_bytes)
        is_same = announced == (mailbox.file_bytes, mailbox.sha256, mailbox.part_bytes)
        if not is_same or sender.role != Role(mailbox.sector, mailbox.type):
            raise MailboxRefused(Fault.FILE_NUMBER_USED)
        if not 1 <= part.part <= mailbox.parts or len(part.data) != mailbox.length_of(part.part):
            raise MailboxRefused(Fault.FILE_PART_MALFORMED)
        if not any(mailbox.received):
            self._check_room(sender.kbo, part)
        return mailbox, mailbox.has(part.part)

    def _check_room(self, kbo: str, part: Part) -> None:
        with self._transaction() as transaction:
            tables = self._receiving, self._waiting
            unfinished = sum(int(transaction.stat(table)["entries"]) for table in tables)
            with transaction.cursor(self._receiving) as cursor:
                own, found = 0, cursor.set_range(key_of(kbo, 0))
                while found and cursor.key().startswith(kbo.encode()):
                    own += number_in(cursor.key()) != part.number
                    found = cursor.next()
        if own >= mailboxes_receiving_max or unfinished >= mailboxes_unfinished_max:
            raise MailboxRefused(Fault.FILES_TOO_MANY)
        if shutil.disk_usage(self.folder).free < 2 * part.file_bytes + _ROOM_BYTES_MIN:
            raise MailboxRefused(Fault.FILE_NO_ROOM)

    def _compare(self, mailbox: Mailbox, part: Part) -> None:
        with self.lines_file(mailbox).open("rb") as file:
            held = os.pread(file.fileno(), len(part.data), (part.part - 1) * part.part_bytes)
        if held != part.data:
            raise MailboxRefused(Fault.FILE_PART_DIFFERS)

    def _write(self, mailbox: Mailbox, part: Part) -> None:
        descriptor = os.open(self.lines_file(mailbox), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, mailbox.file_bytes)  # what a crash left may be longer
            os.pwrite(descriptor, part.data, (part.part - 1) * part.part_bytes)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(self.folder)

    def _note_part(self, mailbox: Mailbox, part: int) -> Mailbox:
        bits = bytearray(mailbox.received)
        bits[(part - 1) // 8] |= 1 << (part - 1) % 8
        return self.note(replace(mailbox, received=bytes(bits)))

    def _complete(self, mailbox: Mailbox, now_ms: int) -> Mailbox:
        """Check a mailbox all of whose parts are here, and put it with those that wait."""
        try:
            whole = checked(mailbox, self.lines_file(mailbox))
        except MailboxRefused as refused:
            fault = int(refused.fault)
            noted = self.note(
                replace(mailbox, state=State.REFUSED, fault=fault, complete_ms=now_ms)
            )
            self.forget_lines(noted)
            return noted
        with self._transaction(self._waiting) as transaction, transaction.cursor() as cursor:
            place = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 1
        return self.note(replace(whole, state=State.WAITING, complete_ms=now_ms, place=place))
