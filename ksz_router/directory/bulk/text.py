"""The text of a file in blocks of whole lines: CSV as it stands, Parquet written as CSV.

One road for both: what a cell may hold is judged on its text. Rows of a Parquet file are counted
from 1, lines of a CSV file too.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.rows import COLUMNS, RowError

BLOCK_BYTES = 1 << 18
"""What stays in the cache of a processor while it is judged."""

PARQUET = ".parquet"
_BATCH_ROWS = 4_096
_WRITTEN_TEXTS = 32_768
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Block(NamedTuple):
    """Some lines, each ended by a line feed."""

    text: bytes
    first_row: int
    done: int
    """How much of the file was read up to here, of ``total``."""
    total: int


def read(file: Path) -> Iterator[Block]:
    """Read a file block by block.

    Raises:
        RowError: it is not a file of such rows at all, or a line is too long.
        OSError: it cannot be read.
    """
    return _read_parquet(file) if file.suffix == PARQUET else _read_csv(file)


def _read_csv(file: Path) -> Iterator[Block]:
    with file.open("rb") as stream:
        total = os.fstat(stream.fileno()).st_size
        row, rest = 1, stream.read(len(_BYTE_ORDER_MARK)).removeprefix(_BYTE_ORDER_MARK)
        while read := stream.read(BLOCK_BYTES):
            whole, feed, tail = (rest + read).rpartition(b"\n")
            rest = tail
            if feed:
                yield Block(text := _plain(whole), row, stream.tell(), total)
                row += text.count(b"\n")
            if len(rest) > BLOCK_BYTES:
                raise RowError(f"is not CSV: a line has more than {BLOCK_BYTES} bytes", row)
        if rest:
            yield Block(_plain(rest), row, total, total)


def _plain(lines: bytes) -> bytes:
    """The lines with the ends of lines that ours have."""
    return lines.replace(b"\r\n", b"\n").removesuffix(b"\r") + b"\n"


def _read_parquet(file: Path) -> Iterator[Block]:
    import pyarrow as pa  # noqa: PLC0415  not where a CSV file is loaded
    from pyarrow import parquet  # noqa: PLC0415

    heading = ",".join(COLUMNS)
    yield Block(f"{heading}\n".encode(), 0, 0, 1)
    try:
        with parquet.ParquetFile(file, pre_buffer=False) as source:
            total, row = source.metadata.num_rows, 1
            if sorted(source.schema_arrow.names) != sorted(COLUMNS):
                raise RowError(f"the columns must be: {heading}", 1)
            batches = source.iter_batches(_BATCH_ROWS, columns=list(COLUMNS), use_threads=False)
            for batch in batches:
                yield Block(_written(batch.select(COLUMNS)), row, row + len(batch) - 1, total)
                row += len(batch)
    except pa.ArrowException as error:
        # What Arrow says may hold a value.
        raise DirectoryError(f"{file}: cannot be read as Parquet; write it anew") from error


def _written(batch: Any) -> bytes:
    """Return the rows of a record batch as lines of CSV, none of them quoted."""
    import pyarrow as pa  # noqa: PLC0415

    columns = [_text(column) for column in batch.columns]
    try:
        return _lines(columns)
    except pa.ArrowInvalid:
        return _lines([_barred(column) for column in columns])


def _text(column: Any) -> Any:
    """The column as it is where it is written without doubt, else as text."""
    from pyarrow import string, types  # noqa: PLC0415

    is_plain = types.is_integer(column.type) or types.is_date(column.type)
    return column if is_plain else column.cast(string())


def _barred(column: Any) -> Any:
    """The column with a character that no cell may have for those that would end a cell."""
    from pyarrow import compute, string  # noqa: PLC0415

    return compute.replace_substring_regex(column.cast(string()), '[\n\r,"]', "\ufffd")


def _lines(columns: list[Any]) -> bytes:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    options = csv.WriteOptions(include_header=False, quoting_style="none", batch_size=_BATCH_ROWS)
    stream = pa.BufferOutputStream()
    csv.write_csv(pa.RecordBatch.from_arrays(columns, names=list(COLUMNS)), stream, options)
    return bytes(stream.getvalue())


def write_parquet(file: Path, texts: Iterable[str], remark: str) -> None:
    """Write rows of CSV text as a Parquet file, its columns as narrow as what they hold.

    ``remark`` is kept in the file, under the key ``remark``.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv, parquet  # noqa: PLC0415

    kinds = dict.fromkeys(COLUMNS, pa.date32())
    kinds |= dict.fromkeys(COLUMNS[:3], pa.string()) | dict.fromkeys(COLUMNS[4:8], pa.int16())
    read_options = csv.ReadOptions(column_names=COLUMNS, use_threads=False)
    convert_options = csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
    schema = pa.schema(kinds.items(), metadata={"remark": remark})
    with parquet.ParquetWriter(file, schema) as writer:
        rest = iter(texts)
        while some := "".join(islice(rest, _WRITTEN_TEXTS)):
            source = pa.BufferReader(some.encode())
            table = csv.read_csv(source, read_options, convert_options=convert_options)
            writer.write_table(table.cast(schema))
