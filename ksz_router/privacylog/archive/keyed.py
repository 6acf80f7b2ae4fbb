"""Single rows of sealed files: the leaves that a key file gives, the entries at leaves.

What is read is checked against nothing here: who makes a proof of it compares the leaf.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.canon import ColumnsRefused, to_records
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.schema import TRUTH
from ksz_router.privacylog.entry import Kind, parse_head
from ksz_router.privacylog.question import FOREVER_US

_SLACK_US: Final = 24 * 3600 * 1_000_000
"""How far the clock of an exchange id may be ahead of that of its entries."""


_TEXTS: Final = [field.name for field in TRUTH if field.type == pa.string()]
"""Taken from a row group as dictionaries: few rows of it are wanted."""


class ArchiveUnreadable(PrivacyLogError):
    """A file that must be there is missing or damaged. The message names it."""


class SealedEntry(NamedTuple):
    """An entry of a ``t`` file."""

    seq: int
    """Index of its leaf."""
    slot: str
    number: int
    """Of the record in its slot."""
    record: bytes
    """Canonical form."""


def may_hold(file: SealedFile, key: bytes) -> bool:
    """Say whether a file whose first sort column is a token may have a row of this one."""
    return not file.max_key or file.min_key <= key.hex() <= file.max_key


def earliest_us(exchange: bytes) -> int:
    """Return before when no entry of an exchange can be: its id has the time, if it is ours."""
    if exchange[6] >> 4 != 7:  # no UUIDv7
        return 0
    return int.from_bytes(exchange[:6], "big") * 1000 - _SLACK_US


def times_of(exchanges: Collection[bytes]) -> tuple[int, int]:
    """Return before when no entry of exchanges can be, and behind when none of their requests."""
    since_us = [earliest_us(exchange) for exchange in exchanges]
    until_us = max(since_us, default=0) + 2 * _SLACK_US if all(since_us) else FOREVER_US
    return min(since_us, default=0), until_us


def settled(exchanges: Collection[bytes], entries: Collection[SealedEntry]) -> bool:
    """Say whether of each exchange an entry is there that ends it."""
    heads = [parse_head(each.record) for each in entries]
    return set(exchanges) <= {
        head.exchange
        for head in heads
        if head.kind == Kind.OUTCOME or (head.kind == Kind.REQUEST and head.code)
    }


def seqs_in(path: Path, keys: Collection[bytes]) -> list[int]:
    """Return the leaves of these keys in a ``k`` file.

    Raises:
        ArchiveUnreadable: the file is missing or damaged.
    """
    seqs: list[int] = []
    with opened(path) as file:
        at = file.schema_arrow.get_field_index("key")
        for group in groups_of(file, at, keys):
            column = file.read_row_group(group, columns=["key"], use_threads=False)["key"]
            spans = spans_of(column, keys)
            if spans:  # most often the key is in none of the files
                found = file.read_row_group(group, columns=["seq"], use_threads=False)["seq"]
                seqs += [seq for span in spans for seq in found.slice(*span).to_pylist()]
    return seqs


def groups_of(file: pq.ParquetFile, column: int, keys: Collection[bytes]) -> list[int]:
    """Return the row groups that may hold keys: rows are sorted by them, so half need no look."""
    groups = range(file.metadata.num_row_groups)

    def held(group: int) -> pq.Statistics:
        return file.metadata.row_group(group).column(column).statistics

    if groups and (held(0) is None or not held(0).has_min_max):
        return list(groups)
    found = set[int]()
    for key in keys:
        begin = bisect_left(groups, key, key=lambda group: held(group).max)
        found.update(range(begin, bisect_right(groups, key, key=lambda group: held(group).min)))
    return sorted(found)


def spans_of(column: pa.ChunkedArray, keys: Collection[bytes]) -> list[tuple[int, int]]:
    """Return where keys are in a column of tokens that is sorted by them: first row, and count."""
    cells = column.combine_chunks()
    found = []
    for key in sorted(keys):
        begin = bisect_left(cells, key, key=_bytes)
        end = bisect_right(cells, key, begin, key=_bytes)
        if begin < end:
            found.append((begin, end - begin))
    return found


def _bytes(cell: pa.Scalar) -> bytes:
    value = cell.as_py()
    assert isinstance(value, bytes)
    return value


def entries_in(path: Path, first_leaf: int, seqs: Collection[int]) -> list[SealedEntry]:
    """Return the entries at leaves that a ``t`` file has, in their order.

    Raises:
        ArchiveUnreadable: the file is missing or damaged, or does not hold them.
    """
    found: list[SealedEntry] = []
    with opened(path, dictionaries=_TEXTS) as file:
        for table in _rows_at(file, path, first_leaf, seqs):
            columns = (table[name].to_pylist() for name in ("seq", "slot", "record"))
            found += map(SealedEntry, *columns, to_records(table.combine_chunks()))
    return found


def exchanges_in(path: Path, first_leaf: int, seqs: Collection[int]) -> list[bytes]:
    """Return the exchange ids of the entries at leaves that a ``t`` file has.

    Raises:
        ArchiveUnreadable: the file is missing or damaged, or does not hold them.
    """
    with opened(path) as file:
        tables = list(_rows_at(file, path, first_leaf, seqs, ["seq", "exchange"]))
    found = (exchange for table in tables for exchange in table["exchange"].to_pylist())
    return [exchange for exchange in found if exchange is not None]


def _rows_at(
    file: pq.ParquetFile,
    path: Path,
    first_leaf: int,
    seqs: Collection[int],
    columns: list[str] | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows at leaves, as many as there are row groups with some of them."""
    begin, missing = first_leaf, set(seqs)
    for group in range(file.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        here = sorted(seq for seq in missing if begin <= seq < end)
        if here:
            rows = [seq - begin for seq in here]
            # Fifty columns of 65,536 rows, for one or two of them: each processor unpacks half.
            table = file.read_row_group(group, columns=columns, use_threads=True).take(rows)
            table = table.cast(pa.schema([TRUTH.field(name) for name in table.column_names]))
            if table["seq"].to_pylist() != here:
                break
            missing.difference_update(here)
            yield table
        begin = end
    if missing:
        raise ArchiveUnreadable(f"{path}: does not hold its leaves at their places")


@contextmanager
def opened(path: Path, dictionaries: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """Open a sealed file for as long as the context lasts.

    Args:
        path: Of the file.
        dictionaries: Columns of text that are to come as dictionaries.

    Raises:
        ArchiveUnreadable: it is missing or damaged, or what is read of it within the context is.
    """
    with (
        reading(path),
        pq.ParquetFile(path, read_dictionary=list(dictionaries), pre_buffer=False) as file,
    ):
        yield file


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of what fails within the context that the file is unreadable.

    Raises:
        ArchiveUnreadable: it is missing or damaged.
    """
    try:
        yield
    except (OSError, pa.ArrowException, ColumnsRefused) as error:
        raise ArchiveUnreadable(f"{path}: missing or damaged; restore it") from error
