"""One transaction of the writer: records are read once, changed in memory, written once.

The order of the changes is that of the caller. Reads and writes are sorted by key, so that pages
which lie together are touched together, whatever that order is.
"""

from collections.abc import Mapping, Sequence

import lmdb
from msgspec.structs import replace

from ksz_router.days import brussels_day
from ksz_router.directory import folder, journal, notice
from ksz_router.directory.applying import Records, applied
from ksz_router.directory.change import (
    LINE_OPERATIONS,
    Applied,
    Change,
    Operation,
    Reason,
    Refused,
    malformed,
)
from ksz_router.directory.packing import (
    DamagedError,
    Record,
    current_of,
    pack,
    pack_key,
    unpack,
    unpack_role,
)
from ksz_router.model import Line

_CLOCKS_APART_US = 60_000_000
"""An exchange id is as old as a worker's clock says, its row as this program's."""


class Working:
    """What a transaction has read and is going to write."""

    def __init__(
        self,
        transaction: "lmdb.Transaction[bytes]",
        databases: folder.Databases,
        meta: folder.Meta,
        now_us: int,
    ) -> None:
        self._transaction = transaction
        self._databases = databases
        self._at(now_us)
        self._version = meta.version
        self._meta = meta
        self._values: dict[str, bytes | None] = {}
        """What is packed under each number, as it is after the changes so far; None: nothing."""
        self._changed: dict[str, bytes] = {}
        self._numbers, self._lines = meta.numbers, meta.lines
        self._rows: list[tuple[bytes, bytes]] = []
        self._noted: Mapping[bytes, bytes] = {}
        """What was known of the exchange ids before this transaction."""
        self._notes: dict[bytes, bytes] = {}
        self._notices: list[tuple[bytes, bytes]] = []
        with transaction.cursor(databases.changes) as cursor:
            self._ordinal = journal.last_ordinal(cursor, meta.version)
        forgotten = transaction.get(folder.FORGOTTEN, db=databases.meta)
        self._forgotten_us = folder.forgotten_in(forgotten)

    def _at(self, now_us: int) -> None:
        self._now_us = now_us
        self._today = brussels_day(now_us * 1000)

    def apply(self, changes: Sequence[Change]) -> list[Applied | Refused]:
        """Apply changes one after the other; return what came of each."""
        reasons = [malformed(change) for change in changes]
        self._read_ahead([change for change, no in zip(changes, reasons, strict=True) if not no])
        return [
            self._apply(change) if reason is None else Refused(reason)  # nothing to note
            for change, reason in zip(changes, reasons, strict=True)
        ]

    def _read_ahead(self, changes: Sequence[Change]) -> None:
        """Read what well-formed changes name, in the order of the keys."""
        numbers = sorted({change.number for change in changes})
        keys = [*map(pack_key, numbers)]
        with self._transaction.cursor(self._databases.persons) as cursor:
            found = dict(cursor.getmulti(keys))
        self._values = dict(zip(numbers, map(found.get, keys), strict=True))
        with self._transaction.cursor(self._databases.applied) as cursor:
            self._noted = dict(cursor.getmulti(sorted({change.exchange for change in changes})))

    def _apply(self, change: Change) -> Applied | Refused:
        noted = self._notes.get(change.exchange) or self._noted.get(change.exchange)
        if noted is not None:
            return self._repeated(change, journal.unpack_note(noted))
        if self._forgotten_us and _made_us(change.exchange) <= self._forgotten_us:
            return Refused(Reason.TICKET_TOO_OLD)  # it may have been made: nothing to note
        records = self._records_of(change)
        result = applied(records, change, self._today)
        self._settle(change, records, result)
        if isinstance(result, Refused):
            return result
        for part, told in enumerate(notice.notices_of(change, result, self._now_us)):
            self._notices.append((notice.key_of(self._version, part), notice.pack(told)))
        return _answer(change, {**records, **result}, self._version)

    def _repeated(self, change: Change, note: journal.Note) -> Applied | Refused:
        if note.reason is not None:
            return Refused(note.reason, repeated=True)
        return _answer(change, self._records_of(change), note.version, is_repeated=True)

    def _records_of(self, change: Change) -> dict[str, Record]:
        """Records of every number that a change may concern, as far as they exist.

        Of a change of lines they hold the lines of its role only: no rule looks at others.
        """
        records: dict[str, Record] = {}
        role = change.line if change.operation in LINE_OPERATIONS else None
        self._read_family(change.number, role, records)
        if change.operation is Operation.REPLACE:
            self._read_family(change.other, role, records)
        return records

    def _read_family(self, number: str, role: Line | None, into: dict[str, Record]) -> None:
        record = self._record(number, role)
        if record is None:
            return
        into[number] = record
        family = {number, *record.others}
        for other in record.others:
            found = self._record(other, role)
            if found is None:
                raise DamagedError("a number names another one that is missing")
            if {other, *found.others} != family:
                raise DamagedError("the numbers of a person do not all name each other")
            into[other] = found

    def _record(self, number: str, role: Line | None) -> Record | None:
        try:
            value = self._values[number]
        except KeyError:
            value = self._transaction.get(pack_key(number), db=self._databases.persons)
            self._values[number] = value
        if value is None:
            return None
        return unpack(value) if role is None else unpack_role(value, role.sector, role.type)

    def _settle(self, change: Change, former: Records, result: dict[str, Record] | Refused) -> None:
        """Keep what a change made, and note what became of it."""
        if isinstance(result, Refused):
            self._ordinal += 1
            key = journal.refused_key_of(self._version, self._ordinal)
            self._note(key, change, result.reason)
            return
        self._version += 1
        self._ordinal = 0
        self._keep(former, result)
        self._note(journal.key_of(self._version), change, None)

    def again(self, version: int, ordinal: int, entry: journal.Entry) -> None:
        """Do once more what a journal tells, at the time at which it was done.

        Raises:
            DamagedError: it does not come out as it did; the journal is of another history.
        """
        self._at(entry.now_us)
        change = entry.change
        if change.operation is Operation.RESTORED:
            self._version, self._ordinal = version, 0
            self._rows.append((journal.key_of(version), journal.repack(entry)))
            return
        records = self._records_of(change)
        result = applied(records, change, self._today)
        if isinstance(result, Refused):
            did = (self._version, self._ordinal + 1, int(result.reason))
        else:
            did = (self._version + 1, 0, 0)
        if did != (version, ordinal, entry.reason):
            raise DamagedError(
                f"version {version} of the journal does not fit the backup; "
                "it is of another history"
            )
        self._settle(change, records, result)

    def _keep(self, former: Records, changed: Records) -> None:
        for number, record in changed.items():
            self._lines += len(record.lines)
            if number in former:
                self._lines -= len(former[number].lines)
            else:
                self._numbers += 1
            self._values[number] = self._changed[number] = pack(record)

    def _note(self, key: bytes, change: Change, reason: Reason | None) -> None:
        self._rows.append((key, journal.pack_entry(self._now_us, reason, change)))
        self._notes[change.exchange] = journal.pack_note(self._version, reason)

    def trim(self, before_us: int, rows_max: int, kept_max: int) -> None:
        """Forget rows of the journal that are older, with what is noted of their exchange ids.

        And the oldest, whatever their age, where there are more than ``kept_max``. At most
        ``rows_max`` go at once.
        """
        changes, meta = self._databases.changes, self._databases.meta
        kept = self._transaction.stat(changes)["entries"] + len(self._rows)
        forgotten_us = 0
        with self._transaction.cursor(changes) as cursor:
            cursor.first()
            for count in range(rows_max):
                if not cursor.key():
                    break
                entry = journal.unpack_entry(cursor.value())
                if entry.now_us >= before_us:
                    if kept - count <= kept_max:
                        break
                    forgotten_us = entry.now_us + _CLOCKS_APART_US
                if entry.change.exchange:
                    self._transaction.delete(entry.change.exchange, db=self._databases.applied)
                cursor.delete()
        if forgotten_us > self._forgotten_us:
            folder.write_forgotten(self._transaction, meta, forgotten_us)

    @property
    def notices_count(self) -> int:
        """How many notices the changes leave."""
        return len(self._notices)

    def write(self) -> folder.Meta:
        """Put everything into the transaction; return how the directory then describes itself."""
        transaction, databases = self._transaction, self._databases
        values = [(pack_key(number), value) for number, value in sorted(self._changed.items())]
        with transaction.cursor(databases.persons) as cursor:
            cursor.putmulti(values)
        with transaction.cursor(databases.changes) as cursor:
            cursor.putmulti(self._rows, append=True)
        with transaction.cursor(databases.notices) as cursor:
            cursor.putmulti(self._notices, append=True)
        with transaction.cursor(databases.applied) as cursor:
            cursor.putmulti(sorted(self._notes.items()))
        meta = replace(self._meta, version=self._version, numbers=self._numbers, lines=self._lines)
        folder.write_state(transaction, databases.meta, meta)
        return meta


def _made_us(exchange: bytes) -> int:
    """When an exchange id was made: a UUIDv7 begins with it, in milliseconds (RFC 9562, 5.7)."""
    return int.from_bytes(exchange[:6], "big") * 1000


def _answer(
    change: Change, records: Records, version: int, *, is_repeated: bool = False
) -> Applied:
    record = records.get(change.number)
    if record is None:  # of a repeated change, after a load that no longer has the number
        return Applied(version, (), change.number, is_repeated)
    lines = record.lines
    for other in record.others:
        lines += records[other].lines
    return Applied(version, lines, current_of(record, change.number), is_repeated)
