"""The rows of few keys, taken out of files that are sorted by them.

The least and the greatest key of each row group say where they are. To have them so costs a third
of what a query over the files does, and as much in a file of ten times the rows.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ksz_router.privacylog.archive.keyed import groups_of, opened

GROUPS_MAX: Final = 4
"""Of a file: keys with rows in more of them are better asked for by a query, in bounded memory."""


class Keys(NamedTuple):
    """Which rows are wanted."""

    column: str
    """That the file is sorted by first."""
    keys: Collection[bytes]


def take(path: Path, wanted: Keys) -> pa.Table | None:
    """Return the rows with these keys, but for the columns of place and the key itself.

    None where they are too many to be taken.

    Raises:
        ArchiveUnreadable: the file is missing or damaged.
    """
    with opened(path, reads_ahead=True) as file:
        at = file.schema_arrow.get_field_index(wanted.column)
        columns = file.schema_arrow.names[at + 1 :]
        found = [file.schema_arrow.empty_table().select(columns)]
        groups = groups_of(file, at, wanted.keys)
        if len(groups) > GROUPS_MAX:
            return None
        keys = pa.array(sorted(wanted.keys), file.schema_arrow.field(at).type)
        for group in groups:
            column = file.read_row_group(group, columns=[wanted.column], use_threads=False)[0]
            rows = pc.indices_nonzero(pc.is_in(column, keys))
            if len(rows):
                table = file.read_row_group(group, columns=columns, use_threads=False)
                found.append(table.take(rows))
        return pa.concat_tables(found)
