"""Files of sealed rows as Parquet, made a row group at a time.

``docs/privacylog-format.md`` says how each column is encoded.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ksz_router.privacylog.archive.coded import plain
from ksz_router.privacylog.archive.pieces import Pieces, SegmentRefused, Written
from ksz_router.privacylog.archive.schema import SCHEMAS, SORTED_BY
from ksz_router.privacylog.durable import DISK, Disk

ROWS_OF_GROUP: Final = {"t": 65_536, "p": 4_096, "u": 32_768, "k": 32_768, "r": 32_768}
"""What is asked for by its first column is read in smaller pieces; of a person, all columns are."""
ROWS_MAX: Final = 1_048_576
"""Of a ``t`` file."""

_NUMBERS = {"seq", "record", "at_us", "outcome_at_us"}
"""Numbers of moments and places. In the order of leaves their differences are small; in the order
of persons they are not, but their first bytes repeat."""
_SPREAD = {"request_bytes", "answer_bytes", "router_us", "source_us"}
"""Numbers that hardly repeat, and of few bits."""
_RANDOM = {"exchange", "key", "person", "member", "user"}
"""Tokens of a derived file that hardly repeat, or only in a row."""
_PAGE_ROWS_DERIVED = 8_192
"""Few rows are wanted of a row group: pages without any are not unpacked."""
_QUICK = "p"
"""Kinds of which a question unpacks thirty columns in each of forty files: by LZ4, in three fifths
of the time that zstd takes, and a tenth more bytes."""


def encode(kind: str, table: pa.Table) -> pa.Buffer:
    """Return the Parquet file of a table of one of the ``SCHEMAS``.

    Args:
        kind: Of file.
        table: Its rows; columns of names may be dictionaries.
    """
    sink = pa.BufferOutputStream()
    tables = [table.unify_dictionaries()] if kind == "t" else groups_of(kind, table)
    _encode_into(sink, kind, tables)
    return sink.getvalue()


def groups_of(kind: str, table: pa.Table) -> Iterator[pa.Table]:
    """Yield the row groups of a derived table, names as texts; one without rows if it has none."""
    size = ROWS_OF_GROUP[kind]
    for begin in range(0, max(len(table), 1), size):
        yield plain(table.slice(begin, size))


def write_groups(
    file: Path,
    kind: str,
    tables: Iterable[pa.Table],
    *,
    pause: Callable[[], None],
    disk: Disk = DISK,
) -> Written:
    """Write the Parquet file of tables while it is being made, and as :func:`pieces.write` does.

    Args:
        file: Folders above it are made where they are missing.
        kind: Of file, a derived one.
        tables: Of one schema and at least one; each begins a row group.
        pause: Called after each 256 KiB, which are flushed then.
        disk: For fault tests.

    Raises:
        OSError: the disk refused. What is left has another name.
    """
    with Pieces(file, pause, disk) as pieces:
        _encode_into(pa.PythonFile(pieces, "w"), kind, tables)
    return pieces.written()


def _encode_into(sink: pa.NativeFile, kind: str, tables: Iterable[pa.Table]) -> None:
    rest = iter(tables)
    first = next(rest)
    make = _truth_writer if kind == "t" else _derived_writer
    with make(kind, first.schema, sink) as parquet:
        for table in chain([first], rest):
            parquet.write_table(table, row_group_size=ROWS_OF_GROUP[kind])


def _truth_writer(kind: str, schema: pa.Schema, sink: pa.NativeFile) -> pq.ParquetWriter:
    truth = SCHEMAS[kind]
    delta = [name for name in truth.names if name in _NUMBERS | _SPREAD]
    tokens = [field.name for field in truth if pa.types.is_fixed_size_binary(field.type)]
    parquet = pq.ParquetWriter(
        sink,
        schema,
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=[path for path in _leaves(truth) if path not in {*delta, *tokens}],
        column_encoding={
            **dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
            **dict.fromkeys(tokens, "PLAIN"),
        },
        store_schema=False,
    )
    # Columns of names may come as dictionaries; who reads with arrow is to have texts.
    shown = b64encode(truth.serialize().to_pybytes())
    parquet.add_key_value_metadata({"ARROW:schema": shown})
    return parquet


def _derived_writer(kind: str, schema: pa.Schema, sink: pa.NativeFile) -> pq.ParquetWriter:
    quick = kind in _QUICK
    numbers = [name for name in schema.names if name in _NUMBERS]
    random = [name for name in schema.names if name in _RANDOM]
    return pq.ParquetWriter(
        sink,
        schema,
        data_page_version="1.0",
        compression="lz4" if quick else "zstd",
        compression_level=None if quick else 1,  # a third of the time of 3, a fiftieth more bytes
        use_dictionary=[path for path in _leaves(schema) if path not in {*numbers, *random}],
        column_encoding={
            **dict.fromkeys(numbers, "BYTE_STREAM_SPLIT"),
            **dict.fromkeys(random, "PLAIN"),
        },
        # Of few columns: a query over forty files reads the ends of all of them first.
        write_statistics=[name for name in schema.names if name in {*SORTED_BY[kind], "at_us"}],
        max_rows_per_page=_PAGE_ROWS_DERIVED,
        store_schema=False,
    )


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """Yield the columns as Parquet names them: of a list, what its elements are made of."""
    for field in schema:
        if not pa.types.is_list(field.type):
            yield field.name
        elif pa.types.is_struct(field.type.value_type):
            for inner in field.type.value_type:
                yield f"{field.name}.list.element.{inner.name}"
        else:
            yield f"{field.name}.list.element"


def rows_of(kind: str, source: Path | bytes, rows_max: int | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a file, a row group at a time; columns of names come as dictionaries.

    Args:
        kind: Of file.
        source: The file, or its bytes.
        rows_max: At most so many at a time, where a row group is too much.

    Raises:
        SegmentRefused: it is no file of this kind, or damaged.
        OSError: it cannot be read.
    """
    name = source if isinstance(source, Path) else "a sealed file"
    names = [field.name for field in SCHEMAS[kind] if field.type == pa.string()]
    try:
        with pq.ParquetFile(
            pa.memory_map(str(source)) if isinstance(source, Path) else pa.BufferReader(source),
            read_dictionary=names,
        ) as parquet:
            if parquet.schema_arrow.names != SCHEMAS[kind].names:
                raise SegmentRefused(f"{name}: its columns are not those of kind {kind}")
            for group in range(parquet.num_row_groups):
                if rows_max is not None:
                    for batch in parquet.iter_batches(rows_max, [group], use_threads=False):
                        yield pa.table(batch)
                elif len(rows := parquet.read_row_group(group, use_threads=False)):
                    yield rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SegmentRefused(f"{name}: is damaged, or no Parquet file: put it back") from error
