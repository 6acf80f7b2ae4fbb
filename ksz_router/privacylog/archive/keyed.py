"""Single rows of sealed files: the leaves that a key file gives, the entries at leaves.

What is read is checked against nothing here: who makes a proof of it compares the leaf.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.canon import ColumnsRefused, to_records
from ksz_router.privacylog.archive.manifest import SealedFile

_SLACK_US: Final = 24 * 3600 * 1_000_000
"""How far the clock of an exchange id may be ahead of that of its entries."""


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


def seqs_in(path: Path, keys: Collection[bytes]) -> list[int]:
    """Return the leaves of these keys in a ``k`` file.

    Raises:
        ArchiveUnreadable: the file is missing or damaged.
    """
    seqs: list[int] = []
    with _opened(path) as file:
        at = file.schema_arrow.get_field_index("key")
        wanted = pa.array(sorted(keys), file.schema_arrow.field(at).type)
        for group in range(file.num_row_groups):
            held = file.metadata.row_group(group).column(at).statistics
            known = held is not None and held.has_min_max
            if known and not any(held.min <= key <= held.max for key in keys):
                continue
            column = file.read_row_group(group, columns=["key"])["key"]
            rows = pc.indices_nonzero(pc.is_in(column, wanted))
            if len(rows):  # most often the key is in none of the files
                seqs += file.read_row_group(group, columns=["seq"])["seq"].take(rows).to_pylist()
    return seqs


def entries_in(path: Path, first_leaf: int, seqs: Collection[int]) -> list[SealedEntry]:
    """Return the entries at leaves that a ``t`` file has, in their order.

    Raises:
        ArchiveUnreadable: the file is missing or damaged, or does not hold them.
    """
    found: list[SealedEntry] = []
    begin = first_leaf
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            here = sorted(seq for seq in seqs if begin <= seq < end)
            if here:
                table = file.read_row_group(group).take([seq - begin for seq in here])
                if table["seq"].to_pylist() != here:
                    break
                columns = (table[name].to_pylist() for name in ("seq", "slot", "record"))
                found += map(SealedEntry, *columns, to_records(table.combine_chunks()))
            begin = end
    if len(found) != len(set(seqs)):
        raise ArchiveUnreadable(f"{path}: does not hold its leaves at their places")
    return found


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException, ColumnsRefused) as error:
        raise ArchiveUnreadable(f"{path}: missing or damaged; restore it") from error
