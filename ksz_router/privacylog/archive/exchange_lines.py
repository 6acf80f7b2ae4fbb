"""Which entries belong together: an exchange is one line. Pure.

A line begins with a REQUEST and takes what follows of its exchange up to its first OUTCOME, and
what then follows it directly in its slot: the OUTCOME of a refusal, the further persons of an
answer (the writer puts them there with one call). Everything else of the exchange, such as an
answer that came too late, is a line of its own, and so is a READING. So lines do not depend on
where the log is cut into segments; a line whose end cannot be seen yet is left open.
"""

from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from ksz_router.privacylog.archive.ordering import Numbers, halves, is_null, whole
from ksz_router.privacylog.entry import Kind

OPEN_US_MAX: Final = 7 * 86_400 * 1_000_000
"""A line that is open for longer gets its row as it is: its slot was given up. What still comes is
a line of its own."""

NONE: Final = -1
"""No row."""


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the table of entries, by line, in the order of the first entry."""

    first: Numbers
    """Row of the first entry of each line."""
    outcome: Numbers
    """Row of its first outcome, or ``NONE``."""
    recipients: dict[int, list[int]]
    """By line, where there are any: rows of its RECIPIENT entries."""
    further: dict[int, list[int]]
    """By line, where there are any: rows of its FURTHER entries."""
    open: Numbers
    """Rows of the entries of lines that are not over, rising."""


class _Draft(msgspec.Struct, gc=False):
    first: int
    last: int
    outcome: int = NONE
    recipients: list[int] = []
    further: list[int] = []

    def rows(self) -> list[int]:
        own = [self.first] if self.outcome in (NONE, self.first) else [self.first, self.outcome]
        return own + self.recipients + self.further


class _Entries:
    """The columns of the entries that say what belongs together."""

    def __init__(self, entries: pa.Table) -> None:
        column = {name: whole(entries[name]) for name in _NAMES}
        self.kind = column["kind"].to_numpy()
        self.refused = column["code"].to_numpy() != 0
        self.at_us = column["at_us"].to_numpy()
        self.record = column["record"].to_numpy()
        self.exchange = halves(column["exchange"])
        slots = column["slot"].dictionary_encode()
        self.slot = slots.indices.to_numpy()
        latest = np.full(len(slots.dictionary), NONE, np.int64)
        np.maximum.at(latest, self.slot, self.record)
        self.is_last = self.record == latest[self.slot]
        """The entry is the last of its slot: what belongs to it may follow."""
        self.too_old = self.at_us < self.at_us.max() - OPEN_US_MAX
        named = ~is_null(column["exchange"])
        self.members = np.flatnonzero(named & np.isin(self.kind, _OF_EXCHANGE))
        self.readings = np.flatnonzero(self.kind == _READING)

    def follows(self, row: int, before: int) -> bool:
        """Say whether an entry stands directly behind another in its slot."""
        return bool(
            self.slot[row] == self.slot[before] and self.record[row] == self.record[before] + 1
        )


_REQUEST, _OUTCOME, _RECIPIENT, _FURTHER, _READING = map(
    int, (Kind.REQUEST, Kind.OUTCOME, Kind.RECIPIENT, Kind.FURTHER, Kind.READING)
)
_OF_EXCHANGE = (_REQUEST, _OUTCOME, _RECIPIENT, _FURTHER)
_NAMES = ("kind", "code", "at_us", "slot", "record", "exchange")


def lines_of(table: pa.Table) -> Lines:
    """Return the lines of entries in the order of their leaves, those carried over first.

    Args:
        table: Not empty, with the columns ``kind``, ``code``, ``at_us``, ``slot``, ``record`` and
            ``exchange`` of ``TRUTH``.
    """
    entries = _Entries(table)
    rows, begins, lengths = _groups(entries)
    firsts = rows[begins]
    is_request = entries.kind[firsts] == _REQUEST
    refused = entries.refused[firsts]
    # Nearly all: a request and its outcome, the one of a refusal directly behind it.
    seconds = rows[np.minimum(begins + 1, max(len(rows) - 1, 0))]
    pair = (lengths == 2) & is_request & (entries.kind[seconds] == _OUTCOME)
    directly = (entries.slot[firsts] == entries.slot[seconds]) & (
        entries.record[seconds] == entries.record[firsts] + 1
    )
    pair &= ~refused | directly
    lone = (lengths == 1) & is_request
    lasts = np.where(pair, seconds, firsts)
    waits = (entries.is_last[lasts] | (lone & ~refused)) & ~entries.too_old[firsts]
    done = (pair | lone) & ~waits
    left = (pair | lone) & waits
    first = [firsts[done], entries.readings]
    outcome = [np.where(pair, seconds, NONE)[done], np.full(len(entries.readings), NONE)]
    open_rows = [firsts[left], seconds[left & pair]]

    drafts: list[_Draft] = []
    for at in np.flatnonzero(~(pair | lone)).tolist():
        group = rows[begins[at] : begins[at] + lengths[at]].tolist()
        open_rows.append(np.array(_walk(entries, group, drafts), np.int64))
    first.append(np.array([draft.first for draft in drafts], np.int64))
    outcome.append(np.array([draft.outcome for draft in drafts], np.int64))
    return _in_order(first, outcome, drafts, open_rows)


def _groups(entries: _Entries) -> tuple[Numbers, Numbers, Numbers]:
    """Return the rows by exchange, in each rising; where each exchange begins; how many it has."""
    members = entries.members
    head, tail = (half[members] for half in entries.exchange)
    rows = np.argsort(tail, kind="stable")  # random: hardly ever equal in two exchanges
    same = tail[rows[1:]] == tail[rows[:-1]]
    if (head[rows[1:]] != head[rows[:-1]])[same].any():
        rows = np.lexsort((head, tail))
        same = (tail[rows[1:]] == tail[rows[:-1]]) & (head[rows[1:]] == head[rows[:-1]])
    begins = np.flatnonzero(np.concatenate([[True], ~same])) if len(rows) else np.zeros(0, np.int64)
    return members[rows], begins, np.diff(begins, append=len(rows))


def _walk(entries: _Entries, rows: list[int], drafts: list[_Draft]) -> list[int]:
    """Add the lines of one exchange to ``drafts``; return the rows of the one left open."""
    line: _Draft | None = None
    for row in rows:
        kind = entries.kind[row]
        if kind == _REQUEST:
            if line is not None:
                drafts.append(line)
            line = _Draft(row, row)
            continue
        if line is not None and _takes(entries, line, row):
            line.last = row
        else:
            if line is not None:
                drafts.append(line)
            drafts.append(line := _Draft(row, row))
        _take(line, row, kind)
        if line.first == row:
            line = None
    if line is None:
        return []
    answered = line.outcome != NONE or entries.refused[line.first]
    waits = not answered or entries.is_last[line.last]
    if waits and not entries.too_old[line.first]:
        return line.rows()
    drafts.append(line)
    return []


def _takes(entries: _Entries, line: _Draft, row: int) -> bool:
    if line.outcome == NONE and not entries.refused[line.first]:
        return True
    if not entries.follows(row, line.last):
        return False
    kind = entries.kind[row]
    return bool(kind == _FURTHER or (kind == _OUTCOME and line.outcome == NONE))


def _take(line: _Draft, row: int, kind: int) -> None:
    if kind == _OUTCOME:
        line.outcome = row
    elif kind == _RECIPIENT:
        line.recipients.append(row)
    else:
        line.further.append(row)


def _in_order(
    first: list[Numbers], outcome: list[Numbers], drafts: list[_Draft], open_rows: list[Numbers]
) -> Lines:
    firsts = np.concatenate(first).astype(np.int64)
    rows = np.argsort(firsts, kind="stable")
    place = np.empty(len(rows), np.int64)
    place[rows] = np.arange(len(rows))
    places = place[len(rows) - len(drafts) :].tolist()
    return Lines(
        first=firsts[rows],
        outcome=np.concatenate(outcome).astype(np.int64)[rows],
        recipients={
            at: one.recipients for at, one in zip(places, drafts, strict=True) if one.recipients
        },
        further={at: one.further for at, one in zip(places, drafts, strict=True) if one.further},
        open=np.sort(np.concatenate(open_rows).astype(np.int64)),
    )
