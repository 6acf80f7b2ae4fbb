"""Put together what the rows of each number say: keys and values in order, a range at a time."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ksz_router.directory.bulk.records import (
    BEGIN_SHIFT,
    CAPACITY_SHIFT,
    CODE_MASK,
    DAY_MASK,
    LINE_SHIFT,
    SECTOR_SHIFT,
    Flags,
    Records,
    numbers_of,
    row_of,
)
from ksz_router.directory.bulk.sorting import Range
from ksz_router.directory.contradictions import check_together
from ksz_router.directory.families import Families
from ksz_router.directory.packing import HEADER_BYTES, KEY_BYTES
from ksz_router.directory.rows import RowError
from ksz_router.limits import person_lines_max
from ksz_router.model import ANY_TYPE
from ksz_router.persons import LINE_BYTES

Places = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int64]
Refuse = Callable[[int, str], None]
"""Told a row and why it is refused."""

_HEADER = np.dtype([("status", "u1"), ("others", "u1"), ("deceased", "<u4")])
_LINE = np.dtype(
    [("sector", "<u2"), ("type", "<i2"), ("capacity", "<u2"), ("phase", "<u2"),
     ("begin", "<u4"), ("end", "<u4"), ("changed", "<u4")]
)  # fmt: skip

assert _HEADER.itemsize == HEADER_BYTES
assert _LINE.itemsize == LINE_BYTES


class Assembled(NamedTuple):
    """What a range of numbers becomes."""

    items: Iterator[tuple[bytes, bytes]]
    """Keys and values, in the order of the keys."""
    numbers: int
    lines: int


def assemble(found: Range, families: Families, refuse: Refuse) -> Assembled:
    """Put a range together. Where rows contradict each other that is told, and there is nothing."""
    records = found.records
    numbers = numbers_of(records).astype(np.int64)
    firsts = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    counts = np.diff(firsts, append=len(numbers))
    is_line = (records["role"] >> LINE_SHIFT & 1).astype(np.bool_)
    known = numbers[firsts]
    _check_targets(found, known, families, refuse)
    others = _others(found, known, records["row"][firsts], families, refuse)
    contradicting = _contradicting(records, numbers, is_line, firsts, counts)
    for first, count in contradicting:
        try:
            check_together([row_of(record) for record in records[first : first + count]])
        except RowError as error:
            refuse(error.row, str(error))
    if contradicting:
        return Assembled(iter(()), 0, 0)
    headers = np.zeros(len(known), _HEADER)
    headers["status"] = records["role"][firsts] & CODE_MASK
    headers["deceased"] = records["changed"][firsts]
    for place, keys in others.items():
        headers["others"][place] = len(keys)
    values, ends = _values(headers, others, _lines(records[is_line]), firsts, is_line)
    return Assembled(_items(known, values, ends), len(known), int(is_line.sum()))


def _contradicting(
    records: Records, numbers: Numbers, is_line: Flags, firsts: Places, counts: Places
) -> list[tuple[int, int]]:
    """First row and count of rows of the numbers whose rows surely cannot be put together."""
    period = records["period"]
    is_same = records["role"][1:] == records["role"][:-1]
    is_same &= period[1:] >> CAPACITY_SHIFT == period[:-1] >> CAPACITY_SHIFT
    starts_before = (period[1:] >> BEGIN_SHIFT & DAY_MASK) <= (period[:-1] & DAY_MASK)
    wrong = np.zeros(len(numbers), np.bool_)
    wrong[1:] = is_line[1:] & is_same & starts_before
    wrong |= ~is_line
    wrong[firsts] = is_line[firsts] | (counts > person_lines_max + 1)
    places = np.unique(np.searchsorted(firsts, np.flatnonzero(wrong), side="right") - 1)
    return [(int(firsts[place]), int(counts[place])) for place in places]


def _check_targets(found: Range, known: Numbers, families: Families, refuse: Refuse) -> None:
    """See that what replaced another number has a number row."""
    targets = list(families.targets(_key(found.begin), _key(found.end)))
    if targets:
        wanted = np.array([int.from_bytes(key, "big") for key, _ in targets], np.int64)
        for place in np.flatnonzero(~np.isin(wanted, known)):
            refuse(targets[place][1], "current: has no sound number row of its own")


def _others(
    found: Range,
    known: Numbers,
    rows: npt.NDArray[np.uint32],
    families: Families,
    refuse: Refuse,
) -> dict[int, list[bytes]]:
    """The other numbers of those that have any, by their place in the range."""
    begin, end = _key(found.begin), _key(found.end)
    members = {*families.replaced(begin, end), *(key for key, _ in families.targets(begin, end))}
    others = {}
    for key in sorted(members):
        number = int.from_bytes(key, "big")
        place = int(np.searchsorted(known, number))
        if place < len(known) and known[place] == number:
            try:
                others[place] = families.others(key, int(rows[place]))
            except RowError as error:
                refuse(error.row, str(error))
    return others


def _lines(records: Records) -> npt.NDArray[np.void]:
    """The packed lines of line rows."""
    role, period = records["role"].astype(np.int64), records["period"]
    lines = np.empty(len(records), _LINE)
    lines["sector"] = role >> SECTOR_SHIFT & CODE_MASK
    lines["type"] = (role & CODE_MASK) + ANY_TYPE
    lines["capacity"] = period >> CAPACITY_SHIFT
    lines["phase"] = records["phase"]
    lines["begin"] = period >> BEGIN_SHIFT & DAY_MASK
    lines["end"] = period & DAY_MASK
    lines["changed"] = records["changed"]
    return lines


def _values(
    headers: npt.NDArray[np.void],
    others: dict[int, list[bytes]],
    lines: npt.NDArray[np.void],
    firsts: Places,
    is_line: Flags,
) -> tuple[bytes, Places]:
    """All values, one after the other, and where each ends."""
    heads = headers["others"].astype(np.int64) * KEY_BYTES + HEADER_BYTES
    # A row that is a line takes its bytes, the number row of a number those before its lines.
    sizes = np.where(is_line, LINE_BYTES, 0)
    sizes[firsts] = heads
    row_ends = np.cumsum(sizes)
    size = int(row_ends[-1])
    values = bytearray(size)
    _scatter(values, headers, row_ends[firsts] - heads)
    _scatter(values, lines, row_ends[is_line] - LINE_BYTES)
    for place, keys in others.items():
        end = int(row_ends[firsts[place]])
        values[end - KEY_BYTES * len(keys) : end] = b"".join(keys)
    return bytes(values), row_ends[np.append(firsts[1:], len(row_ends)) - 1]


def _scatter(into: bytearray, parts: npt.NDArray[np.void], places: Places) -> None:
    """Write each part, all of one size, to its place."""
    size = parts.dtype.itemsize
    if len(parts):
        window = np.ndarray((len(into) - size + 1,), f"V{size}", into, strides=(1,))
        window[places] = parts.view(f"V{size}")


def _items(known: Numbers, values: bytes, ends: Places) -> Iterator[tuple[bytes, bytes]]:
    keys = known.astype(">u8").view(np.uint8).reshape(-1, 8)[:, -KEY_BYTES:].tobytes()
    begin = at = 0
    for end in ends.tolist():
        yield keys[at : at + KEY_BYTES], values[begin:end]
        begin, at = end, at + KEY_BYTES


def _key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")
