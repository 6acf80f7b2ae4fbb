"""The rows of few keys, taken out of files that are sorted by them.

The least and the greatest key of each row group say where they are. To have them so costs a third
of what a query over the files does, and as much in a file of ten times the rows. It goes in two
steps, so that the disk brings what all files are asked for while the first of them are unpacked.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ksz_router.limits import KIB
from ksz_router.privacylog.archive.ahead import announce
from ksz_router.privacylog.archive.keyed import groups_of, reading, spans_of

GROUPS_MAX: Final = 8
"""Of a file: keys with rows in more of them are better asked for by a query, in bounded memory."""

_END_BYTES: Final = 128 * KIB
"""Of a file: its end is hardly longer."""


class Keys(NamedTuple):
    """Which rows are wanted."""

    column: str
    """That the file is sorted by first."""
    keys: Collection[bytes]


class Place(NamedTuple):
    """Where in a file the rows of keys can be."""

    path: Path
    file: pq.ParquetFile
    wanted: Keys
    groups: list[int]


def announce_end(path: Path, file_bytes: int) -> None:
    """Let the disk bring the end of a file, which says where its rows are, and wait for nothing."""
    announce(path, max(file_bytes - _END_BYTES, 0), _END_BYTES)


def find(path: Path, wanted: Keys) -> Place | None:
    """Return where rows with these keys can be, and let the disk bring them.

    None where they are too many to be taken.

    Raises:
        ArchiveUnreadable: the file is missing or damaged.
    """
    with reading(path):
        file = pq.ParquetFile(path, pre_buffer=False)
        at = file.schema_arrow.get_field_index(wanted.column)
        groups = groups_of(file, at, wanted.keys)
        if len(groups) > GROUPS_MAX:
            file.close()
            return None
        for group in groups:
            held = file.metadata.row_group(group)
            first, last = held.column(at), held.column(held.num_columns - 1)
            begin = first.data_page_offset
            end = last.data_page_offset + last.total_compressed_size
            announce(path, begin, end - begin)
        return Place(path, file, wanted, groups)


def take(place: Place) -> list[pa.Table]:
    """Return the rows that are there, but for the columns of place and the key itself.

    Raises:
        ArchiveUnreadable: the file is damaged.
    """
    with reading(place.path), place.file as file:
        column, keys = place.wanted
        names = file.schema_arrow.names
        rest = names[names.index(column) + 1 :]
        found = []
        for group in place.groups:
            held = file.read_row_group(group, columns=[column], use_threads=False)[column]
            spans = spans_of(held, keys)
            if spans:
                table = file.read_row_group(group, columns=rest, use_threads=False)
                found += [table.slice(*span) for span in spans]
        return found
