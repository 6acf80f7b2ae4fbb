"""One transaction of the writer: records are read once, changed in memory, written once.

The order of the changes is that of the caller. Reads and writes are sorted by key, so that pages
which lie together are touched together, whatever that order is.
"""

from collections.abc import Sequence

import lmdb
from msgspec.structs import replace

from ksz_router.days import brussels_day
from ksz_router.directory import folder, journal, notice
from ksz_router.directory.applying import applied
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
)
from ksz_router.model import Line


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
        self._records: dict[str, Record | None] = {}
        self._dirty: set[str] = set()
        self._numbers, self._lines = meta.numbers, meta.lines
        self._rows: list[tuple[bytes, bytes]] = []
        self._notes: dict[bytes, bytes] = {}
        self._notices: list[tuple[bytes, bytes]] = []
        with transaction.cursor(databases.changes) as cursor:
            self._ordinal = journal.last_ordinal(cursor, meta.version)

    def _at(self, now_us: int) -> None:
        self._now_us = now_us
        self._today = brussels_day(now_us * 1000)

    def read_ahead(self, changes: Sequence[Change]) -> None:
        """Read the records that the changes name, in the order of their keys."""
        for number in sorted({change.number for change in changes}):
            if len(number) == 11 and number.isascii() and number.isdigit():
                self._record(number)

    def _record(self, number: str) -> Record | None:
        try:
            return self._records[number]
        except KeyError:
            value = self._transaction.get(pack_key(number), db=self._databases.persons)
            record = unpack(value) if value is not None else None
            self._records[number] = record
            return record

    def _family(self, number: str, into: dict[str, Record]) -> None:
        record = self._record(number)
        if record is None:
            return
        into[number] = record
        family = {number, *record.others}
        for other in record.others:
            found = self._record(other)
            if found is None:
                raise DamagedError("a number names another one that is missing")
            if {other, *found.others} != family:
                raise DamagedError("the numbers of a person do not all name each other")
            into[other] = found

    def apply(self, changes: Sequence[Change]) -> list[Applied | Refused]:
        """Apply changes one after the other; return what came of each."""
        return [self._apply(change) for change in changes]

    def _apply(self, change: Change) -> Applied | Refused:
        reason = malformed(change)
        if reason is not None:
            return Refused(reason)  # whenever it is asked: nothing to note
        noted = self._notes.get(change.exchange) or self._transaction.get(
            change.exchange, db=self._databases.applied
        )
        if noted is not None:
            return self._repeated(change, journal.unpack_note(noted))
        result = self._judged(change)
        self._settle(change, result)
        if isinstance(result, Refused):
            return result
        for part, told in enumerate(notice.notices_of(change, result, self._now_us)):
            self._notices.append((notice.key_of(self._version, part), notice.pack(told)))
        return self._answer(change, self._version, is_repeated=False)

    def _judged(self, change: Change) -> dict[str, Record] | Refused:
        records: dict[str, Record] = {}
        self._family(change.number, records)
        if change.operation is Operation.REPLACE:
            self._family(change.other, records)
        return applied(records, change, self._today)

    def _settle(self, change: Change, result: dict[str, Record] | Refused) -> None:
        """Keep what a change made, and note what became of it."""
        if isinstance(result, Refused):
            self._ordinal += 1
            key = journal.refused_key_of(self._version, self._ordinal)
            self._note(key, change, result.reason)
            return
        self._version += 1
        self._ordinal = 0
        self._keep(result)
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
        result = self._judged(change)
        if isinstance(result, Refused):
            did = (self._version, self._ordinal + 1, int(result.reason))
        else:
            did = (self._version + 1, 0, 0)
        if did != (version, ordinal, entry.reason):
            raise DamagedError(
                f"version {version} of the journal does not fit the backup; "
                "it is of another history"
            )
        self._settle(change, result)

    def _keep(self, changed: dict[str, Record]) -> None:
        for number, record in changed.items():
            former = self._records[number]
            self._numbers += former is None
            self._lines += len(record.lines) - (len(former.lines) if former is not None else 0)
            self._records[number] = record
            self._dirty.add(number)

    def _note(self, key: bytes, change: Change, reason: Reason | None) -> None:
        self._rows.append((key, journal.pack_entry(self._now_us, reason, change)))
        self._notes[change.exchange] = journal.pack_note(self._version, reason)

    def _repeated(self, change: Change, note: journal.Note) -> Applied | Refused:
        if note.reason is not None:
            return Refused(note.reason, repeated=True)
        return self._answer(change, note.version, is_repeated=True)

    def _answer(self, change: Change, version: int, *, is_repeated: bool) -> Applied:
        record = self._record(change.number)
        if record is None:  # of a repeated change, after a load that no longer has the number
            return Applied(version, (), change.number, is_repeated)
        lines = record.lines
        for other in record.others:
            found = self._record(other)
            if found is None:
                raise DamagedError("a number names another one that is missing")
            lines += found.lines
        if change.operation in LINE_OPERATIONS and change.line is not None:
            lines = _of_role(lines, change.line)
        return Applied(version, lines, current_of(record, change.number), is_repeated)

    def trim(self, before_us: int, rows_max: int) -> None:
        """Forget rows of the journal that are older, with what is noted of their exchange ids."""
        with self._transaction.cursor(self._databases.changes) as cursor:
            if not cursor.first():
                return
            for _ in range(rows_max):
                if not cursor.key():
                    return
                entry = journal.unpack_entry(cursor.value())
                if entry.now_us >= before_us:
                    return
                if entry.change.exchange:
                    self._transaction.delete(entry.change.exchange, db=self._databases.applied)
                cursor.delete()

    @property
    def notices_count(self) -> int:
        """How many notices the changes leave."""
        return len(self._notices)

    def write(self) -> folder.Meta:
        """Put everything into the transaction; return how the directory then describes itself."""
        put, databases = self._transaction.put, self._databases
        for number in sorted(self._dirty):
            record = self._records[number]
            assert record is not None, "changed into nothing"
            put(pack_key(number), pack(record), db=databases.persons)
        for key, row in self._rows:
            put(key, row, db=databases.changes, append=True)
        for key, told in self._notices:
            put(key, told, db=databases.notices, append=True)
        for exchange in sorted(self._notes):
            put(exchange, self._notes[exchange], db=databases.applied)
        meta = replace(self._meta, version=self._version, numbers=self._numbers, lines=self._lines)
        folder.write_state(self._transaction, databases.meta, meta)
        return meta


def _of_role(lines: tuple[Line, ...], role: Line) -> tuple[Line, ...]:
    return tuple(line for line in lines if (line.sector, line.type) == (role.sector, role.type))
