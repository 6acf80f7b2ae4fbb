"""The submission ledger: which exchange a ticket stands for, and what became of it where.

One row for each (institution, ticket) of the last hours. A row says under which exchange id the
content goes out, and for each recipient whether it got it. It is shared by the workers of a router
in an LMDB environment on a memory file system, without sync: what it says is in the privacy log
too, from which it is made anew after the memory was lost.

    claim    before the request is recorded: is it new, open, or what became of it?
    note     before the outcome is recorded
    settle   after the outcome was recorded; only now others see it
    resolve  after a crash: what was open becomes unknown, what was never recorded is taken back

Keys and contents are keyed hashes made by the caller; nothing here names a person or a ticket.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb

from ksz_router.codes import Code
from ksz_router.ledger.row import (
    ROW_BYTES_MAX,
    UNKNOWN,
    Claim,
    Earlier,
    Granted,
    Noted,
    Row,
    State,
    recipients_of,
)
from ksz_router.limits import MIB, recipients_max

READERS_MAX = 512
ROOM_BYTES = 64 * MIB
"""For what LMDB itself needs."""

TIME = struct.Struct(">Q")
_SLOT = struct.Struct(">H")
_SWEPT_PER_CLAIM = 4
_BOOT, _FORMAT_KEY, _FORMAT = b"boot", b"format", b"1"


class LedgerError(Exception):
    """The ledger cannot be used. The message says what to do."""


class Ledger:
    """The ledger, open in one process. Not for several threads at once.

    Args:
        folder: Its LMDB environment.
        rows_max: How many tickets it holds.
        window_us: How long a ticket is remembered after its latest attempt.
        made_for_boot_s: Make it, for the uptime that began at these Unix seconds.

    Raises:
        LedgerError: it is missing, of another release, or cannot be opened.
    """

    def __init__(
        self, folder: Path, *, rows_max: int, window_us: int, made_for_boot_s: float | None = None
    ) -> None:
        is_made = made_for_boot_s is not None
        self.rows_max = rows_max
        self.window_us = window_us
        if is_made:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.environment = lmdb.open(
                str(folder),
                map_size=2 * rows_max * ROW_BYTES_MAX + ROOM_BYTES,
                create=is_made,
                max_dbs=4,
                max_readers=READERS_MAX,
                sync=False,
                metasync=False,
                lib_version=0,
                mode=0o600,
            )
        except lmdb.Error as error:
            raise LedgerError(
                f"{folder}: no submission ledger ({error}); `ksz-router run` makes it"
            ) from error
        environment = self.environment
        try:
            environment.reader_check()
            meta = environment.open_db(b"meta", create=is_made)
            with environment.begin(db=meta, write=is_made) as transaction:
                if is_made:
                    transaction.put(_BOOT, str(made_for_boot_s).encode())
                    transaction.put(_FORMAT_KEY, _FORMAT)
                boot, release = transaction.get(_BOOT), transaction.get(_FORMAT_KEY)
            self.tickets = environment.open_db(b"rows", create=is_made)
            self.times = environment.open_db(b"times", create=is_made)
            self.claimed = environment.open_db(b"open", create=is_made)
        except lmdb.Error as error:
            environment.close()
            raise LedgerError(f"{folder}: cannot be read ({error}); remove it") from error
        if boot is None or release != _FORMAT:
            environment.close()
            raise LedgerError(f"{folder}: is of another release; remove it, and it is made anew")
        self.boot_s = float(bytes(boot))
        """Began the uptime of the machine in which it was made. Of another, it may not be whole."""

    def close(self) -> None:
        """Give the mapping back."""
        self.environment.close()

    @property
    def rows(self) -> int:
        """How many tickets it holds now."""
        with self.environment.begin(db=self.tickets) as transaction:
            return int(transaction.stat(self.tickets)["entries"])

    def claim(self, claims: Sequence[Claim], now_us: int) -> list[Granted | Earlier | Code]:
        """Claim tickets, in one transaction; a code says why one is neither new nor known.

        A ``Granted`` row is open until it is settled or resolved, and nobody else gets it.
        """
        try:
            with self.environment.begin(write=True) as transaction:
                self._sweep(transaction, len(claims), now_us)
                return [self._claim(transaction, claim, now_us) for claim in claims]
        except (lmdb.MapFullError, lmdb.DiskError):
            return [Code.LEDGER_FULL] * len(claims)

    def _claim(
        self, transaction: lmdb.Transaction, claim: Claim, now_us: int
    ) -> Granted | Earlier | Code:
        key, content = claim.names[0]
        for found_as, known_content in claim.names:
            data = transaction.get(found_as, db=self.tickets)
            if data is None:
                continue
            row = Row(bytes(data))
            if row.content != known_content:
                return Code.TICKET_REUSED
            if row.state != State.CLOSED:
                return Code.SUBMISSION_OPEN
            break
        else:
            if transaction.stat(self.tickets)["entries"] >= self.rows_max:
                return Code.LEDGER_FULL
            row, found_as = Row.new(content), key
            row.first = claim.first or claim.exchange
        if claim.is_to_all and len({*row.codes, *claim.candidates, *claim.spared}) > recipients_max:
            return Code.TOO_MANY_RECIPIENTS  # the answer has to name them all
        recipients = recipients_of(row, claim)
        if not recipients:
            return Earlier(row.first, row.told(claim), row.digest)
        repeats = frozenset(kbo for kbo in recipients if row.codes.get(kbo, (0,))[0] in UNKNOWN)
        earlier = {kbo: code for kbo, code in row.plain_codes().items() if kbo not in recipients}
        transaction.delete(TIME.pack(row.at_us) + found_as, db=self.times)
        if found_as != key:  # the quarter turned since: from here on it goes by its new name
            transaction.delete(found_as, db=self.tickets)
            row.content = content
        row.attempt = min(row.attempt + 1, 0xFFFF)
        row.exchange, row.slot, row.at_us, row.state = (
            claim.exchange, claim.slot, now_us, State.OPEN,
        )  # fmt: skip
        transaction.put(key, row.packed(), db=self.tickets)
        transaction.put(TIME.pack(now_us) + key, b"", db=self.times)
        transaction.put(_SLOT.pack(claim.slot) + claim.exchange, key, db=self.claimed)
        return Granted(row.first, row.attempt, recipients, repeats, earlier)

    def _sweep(self, transaction: lmdb.Transaction, claims: int, now_us: int) -> None:
        """Forget some of what is older than the window, never what is open."""
        due = TIME.pack(max(0, now_us - self.window_us))
        with transaction.cursor(db=self.times) as cursor:
            is_there = cursor.first()
            for _ in range(_SWEPT_PER_CLAIM * claims):
                if not is_there or bytes(cursor.key()[:8]) >= due:
                    return
                key = bytes(cursor.key()[8:])
                data = transaction.get(key, db=self.tickets)
                if data is not None and Row(bytes(data)).state != State.CLOSED:
                    is_there = cursor.next()
                    continue
                transaction.delete(key, db=self.tickets)
                cursor.delete()  # and on to the next
                is_there = bool(cursor.key())

    def note(self, outcomes: Iterable[Noted]) -> None:
        """Write down what became of attempts, before that is recorded.

        Raises:
            LedgerError: there is no room. The process must end; ``resolve`` mends it.
        """
        with self._writing() as transaction:
            for noted in outcomes:
                row = self._attempt(transaction, noted.key, noted.exchange)
                row.came(noted.codes, row.attempt)
                if noted.is_whole:
                    row.digest, row.state = noted.digest, State.NOTED
                transaction.put(noted.key, row.packed(), db=self.tickets)

    def settle(self, attempts: Iterable[tuple[bytes, bytes]]) -> None:
        """Let what was noted be seen, now that it is recorded: keys with their exchange ids.

        Raises:
            LedgerError: as for ``note``.
        """
        with self._writing() as transaction:
            for key, exchange in attempts:
                row = self._attempt(transaction, key, exchange)
                self._close(transaction, key, row)

    def resolve(self, slot: int, left_open: Mapping[bytes, Sequence[str]]) -> int:
        """Mend what a run of a worker left open; return how many rows that were.

        Args:
            slot: Of the worker, which does not run.
            left_open: Exchanges that its log holds without an outcome, and where each was put to.

        Raises:
            LedgerError: as for ``note``; it may be tried again.
        """
        with self._writing() as transaction:
            found = list(self._open_of(transaction, slot))
            for key, exchange in found:
                row = self._attempt(transaction, key, exchange)
                if exchange in left_open:
                    row.lose(left_open[exchange])
                elif row.state == State.OPEN:  # never recorded, so never sent
                    row.attempt -= 1
                if row.attempt:
                    self._close(transaction, key, row)
                else:
                    self._forget(transaction, key, row)
        return len(found)

    @contextmanager
    def _writing(self) -> Iterator[lmdb.Transaction]:
        try:
            with self.environment.begin(write=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            where = self.environment.path()
            raise LedgerError(f"{where}: the submission ledger takes nothing: {error}") from error

    def has_open(self, slot: int) -> bool:
        """Say whether a worker holds, or left, a claim open."""
        with self.environment.begin() as transaction:
            return next(self._open_of(transaction, slot), None) is not None

    def _open_of(self, transaction: lmdb.Transaction, slot: int) -> Iterator[tuple[bytes, bytes]]:
        prefix = _SLOT.pack(slot)
        with transaction.cursor(db=self.claimed) as cursor:
            is_there = cursor.set_range(prefix)
            while is_there and cursor.key()[:2] == prefix:
                yield bytes(cursor.value()), bytes(cursor.key()[2:])
                is_there = cursor.next()

    def _attempt(self, transaction: lmdb.Transaction, key: bytes, exchange: bytes) -> Row:
        data = transaction.get(key, db=self.tickets)
        assert data is not None, "an open row is not swept"
        row = Row(bytes(data))
        assert row.exchange == exchange, "an open row is nobody else's"
        return row

    def _close(self, transaction: lmdb.Transaction, key: bytes, row: Row) -> None:
        row.state = State.CLOSED
        transaction.put(key, row.packed(), db=self.tickets)
        transaction.delete(_SLOT.pack(row.slot) + row.exchange, db=self.claimed)

    def _forget(self, transaction: lmdb.Transaction, key: bytes, row: Row) -> None:
        transaction.delete(key, db=self.tickets)
        transaction.delete(TIME.pack(row.at_us) + key, db=self.times)
        transaction.delete(_SLOT.pack(row.slot) + row.exchange, db=self.claimed)
