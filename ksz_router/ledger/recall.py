"""Make the rows anew from what the privacy log holds.

The log is read one writer after the other, so the attempts of one ticket may come in any order;
what they come to is the same in each.
"""

from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import lmdb

from ksz_router.ledger.book import TIME, Ledger, LedgerError
from ksz_router.ledger.row import FIRST_BYTES, Row

_CHANGES_PER_TRANSACTION = 20_000


class Recall:
    """Fills a ledger that nobody else uses yet. A context manager: its end writes the rest."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._transaction: lmdb.Transaction
        self._changes = 0
        self._retried: set[bytes] = set()
        """First exchange ids of tickets that were sent more than once."""

    def __enter__(self) -> Self:
        self._transaction = self._ledger.environment.begin(write=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._join_quarters()
                self._transaction.commit()
            else:
                self._transaction.abort()
        except lmdb.Error as failure:
            error = failure
        if isinstance(error, lmdb.Error):
            raise LedgerError(f"the submission ledger cannot be made: {error}") from error

    def request(
        self,
        *,
        key: bytes,
        content: bytes,
        exchange: bytes,
        first: bytes,
        attempt: int,
        at_us: int,
    ) -> None:
        """An attempt was recorded; :meth:`outcome` says what became of it."""
        row = self._row(key) or Row.new(content)
        row.first = first
        if first != exchange:
            self._retried.add(first)
        if attempt > row.attempt:
            if row.attempt:
                self._transaction.delete(TIME.pack(row.at_us) + key, db=self._ledger.times)
            self._transaction.put(TIME.pack(at_us) + key, b"", db=self._ledger.times)
            row.exchange, row.attempt, row.at_us = exchange, attempt, at_us
        self._put(key, row)

    def outcome(
        self, key: bytes, attempt: int, codes: Mapping[str, int], digest: bytes | None = None
    ) -> None:
        """What became of an attempt of which the request was given before."""
        row = self._row(key)
        assert row is not None
        row.came(codes, attempt)
        row.digest = digest or row.digest
        self._put(key, row)

    def _join_quarters(self) -> None:
        """Make one row of the rows of a ticket that was retried in another quarter.

        Its name is hashed with other keys there. It goes by that of its latest attempt, as in a
        ledger that saw it happen.
        """
        keys_of: defaultdict[bytes, list[bytes]] = defaultdict(list)
        with self._transaction.cursor(db=self._ledger.tickets) as cursor:
            for key, data in cursor if self._retried else ():
                first = bytes(data[:FIRST_BYTES])
                if first in self._retried:
                    keys_of[first].append(bytes(key))
        for keys in keys_of.values():
            rows = {key: row for key in keys if (row := self._row(key)) is not None}
            latest = max(rows, key=lambda key: rows[key].attempt)
            for key in keys:
                if key != latest:
                    rows[latest].join(rows[key])
                    self._transaction.delete(
                        TIME.pack(rows[key].at_us) + key, db=self._ledger.times
                    )
                    self._transaction.delete(key, db=self._ledger.tickets)
            self._put(latest, rows[latest])

    def _row(self, key: bytes) -> Row | None:
        data = self._transaction.get(key, db=self._ledger.tickets)
        return Row(bytes(data)) if data is not None else None

    def _put(self, key: bytes, row: Row) -> None:
        self._transaction.put(key, row.packed(), db=self._ledger.tickets)
        self._changes += 1
        if self._changes % _CHANGES_PER_TRANSACTION == 0:
            self._transaction.commit()
            self._transaction = self._ledger.environment.begin(write=True)
