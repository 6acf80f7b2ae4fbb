"""Which institutions took part in each line, and for whom: rows of the use files. Pure.

A line has a row for each institution and each of its users that it names; one without user for an
institution of which it names none.
"""

from collections.abc import Iterator
from typing import TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksz_router.privacylog.archive.exchange_lines import NONE, Lines
from ksz_router.privacylog.archive.ordering import Numbers, halves, is_null, ranked, whole
from ksz_router.privacylog.entry import Kind

_PROGRAM = b"APPL:"
_ASKING = ("requester", "acting", "final_client")


class Uses(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of one row for each line, institution and member, in no order."""

    line: Numbers
    names: pa.Array
    """The institutions, in the order of their bytes."""
    institution: Numbers
    """Of each row, its place in ``names``."""
    member: tuple[Numbers, Numbers]
    """Halves of the 16 bytes."""
    has_member: Numbers


class _Members(msgspec.Struct, frozen=True):
    """Users, or where none is named programs, by line."""

    first: Numbers
    last: Numbers
    valid: Numbers

    def take(self, rows: Numbers) -> "_Members":
        return _Members(self.first[rows], self.last[rows], self.valid[rows])


_Pair: TypeAlias = tuple[str, bytes | None]
"""Institution and member."""


def member_of(application: str) -> bytes:
    """Return how a program stands where else the token of a user does."""
    return (_PROGRAM + application.encode())[:16].ljust(16, b"\0")


def uses_of(entries: pa.Table, lines: Lines) -> Uses:
    """Return who took part in each line.

    Args:
        entries: Columns of ``TRUTH``, each of one chunk.
        lines: Of these.
    """
    rows = pa.array(lines.first)
    destinations = whole(entries["destinations"].take(rows))
    sent = destinations.value_lengths().to_numpy()
    asked = np.isin(whole(entries["kind"]).to_numpy()[lines.first], (Kind.REQUEST, Kind.READING))
    asking = _members(entries, np.where(asked, lines.first, NONE))
    supplying = _members(entries, lines.outcome)
    both = _is_both(entries, lines.outcome)
    slow = (sent > 1) | both | (supplying.valid & (sent == 0))
    slow[list(lines.recipients)] = True
    plain = np.flatnonzero(~slow)
    pairs = [
        (line, pair)
        for line in np.flatnonzero(slow).tolist()
        for pair in _pairs(entries, lines, line)
    ]

    only = pc.list_element(destinations.filter(pa.array(sent == 1)), 0)
    texts = [whole(entries[name].take(rows)).cast(pa.string()) for name in _ASKING]
    texts[0] = texts[0].fill_null("")
    count = len(rows)
    others = pa.array([pair[0] for _, pair in pairs], pa.string())
    codes, names = ranked(pa.concat_arrays([*texts, only, others]).dictionary_encode())
    requester, acting, client = (codes[at * count : (at + 1) * count] for at in range(3))
    to = np.full(count, NONE)
    to[sent == 1] = codes[3 * count : 3 * count + len(only)]

    acts = (acting != NONE) & (acting != requester)
    final = (client != NONE) & (client != requester) & (client != acting)
    again = (to == requester) | (to == acting) | (to == client)
    same = asking.valid & (asking.first == supplying.first) & (asking.last == supplying.last)
    supplies = (to != NONE) & (~again | (supplying.valid & ~same))
    # Whom it named only as supplier needs no row without.
    bare = ~asking.valid & supplying.valid
    parts = [
        (plain[~(bare & (requester == to))[plain]], requester, asking),
        (plain[(acts & ~(bare & (acting == to)))[plain]], acting, asking),
        (plain[(final & ~(bare & (client == to)))[plain]], client, asking),
        (plain[supplies[plain]], to, supplying),
    ]
    members = [member.take(line) for line, _, member in parts]
    members.append(_given([pair[1] for _, pair in pairs]))
    return Uses(
        line=np.concatenate(
            [*(line for line, _, _ in parts), np.array([line for line, _ in pairs], np.int64)]
        ),
        names=names,
        institution=np.concatenate(
            [*(of[line] for line, of, _ in parts), codes[3 * count + len(only) :]]
        ),
        member=(
            np.concatenate([member.first for member in members]),
            np.concatenate([member.last for member in members]),
        ),
        has_member=np.concatenate([member.valid for member in members]),
    )


def _members(entries: pa.Table, rows: Numbers) -> _Members:
    """Return the user of an entry, or else its program; of no entry, nobody."""
    first, last = halves(whole(entries["user"]))
    valid = ~is_null(whole(entries["user"]))
    programs = whole(entries["application"]).dictionary_encode()
    if len(programs.dictionary):
        known = [member_of(text) for text in programs.dictionary.to_pylist()]
        of_program = halves(pa.array(known, pa.binary(16)))
        only = np.flatnonzero(~valid & ~is_null(programs))
        code = programs.indices.fill_null(0).to_numpy()[only]
        first[only], last[only], valid[only] = of_program[0][code], of_program[1][code], True
    named = valid[rows] & (rows != NONE)
    return _Members(np.where(named, first[rows], 0), np.where(named, last[rows], 0), named)


def _is_both(entries: pa.Table, rows: Numbers) -> Numbers:
    """Say of which of these entries name a user and a program."""
    user, program = (~is_null(whole(entries[name])) for name in ("user", "application"))
    both: Numbers = (user & program)[rows] & (rows != NONE)
    return both


def _given(members: list[bytes | None]) -> _Members:
    column = pa.array(members, pa.binary(16))
    return _Members(*halves(column), ~is_null(column))


def _pairs(entries: pa.Table, lines: Lines, line: int) -> list[_Pair]:
    """Return the rows of one line that is not as most are."""
    pairs = dict.fromkeys(_all_pairs(entries, lines, line))
    named = {institution for institution, member in pairs if member is not None}
    return [pair for pair in pairs if pair[1] is not None or pair[0] not in named]


def _all_pairs(entries: pa.Table, lines: Lines, line: int) -> Iterator[_Pair]:
    first = _Cells(entries, int(lines.first[line]))
    asker = first.members()[:1] if first.kind in (Kind.REQUEST, Kind.READING) else []
    for institution in (
        first.text("requester") or "",
        first.text("acting"),
        first.text("final_client"),
    ):
        if institution is not None:
            yield institution, asker[0] if asker else None
    sent = first.destinations()
    yield from ((institution, None) for institution in sent)
    ends = [
        *lines.recipients.get(line, ()),
        *([int(lines.outcome[line])] if lines.outcome[line] != NONE else ()),
    ]
    for row in ends:
        end = _Cells(entries, row)
        to = sent if len(sent) == 1 else end.destinations()
        for member in end.members():
            yield from ((institution, member) for institution in to or [""])


class _Cells:
    """What one entry says."""

    def __init__(self, entries: pa.Table, row: int) -> None:
        self._entries, self._row = entries, row
        self.kind: int = entries["kind"][row].as_py()

    def text(self, name: str) -> str | None:
        return self._entries[name][self._row].as_py()  # type: ignore[no-any-return]

    def destinations(self) -> list[str]:
        return self._entries["destinations"][self._row].as_py()  # type: ignore[no-any-return]

    def members(self) -> list[bytes]:
        """Its user and its program, the user first."""
        user, program = self._entries["user"][self._row].as_py(), self.text("application")
        return [
            *([] if user is None else [user]),
            *([] if program is None else [member_of(program)]),
        ]
