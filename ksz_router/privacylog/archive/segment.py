"""Files of sealed rows: as Parquet, paced onto the disk, and read again.

A file is made in memory and then written in pieces, with a flush and a pause after each: a larger
piece makes the commits of the workers wait behind its flush. It gets its name when all of it is on
disk. ``docs/privacylog-format.md`` says how each column is encoded.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.schema import SCHEMAS, SORTED_BY
from ksz_router.privacylog.durable import DISK, Disk, sync_folder

ROWS_OF_GROUP: Final = {"t": 65_536, "p": 4_096, "u": 32_768, "k": 32_768, "r": 32_768}
"""What is asked for by its first column is read in smaller pieces; of a person, all columns are."""
ROWS_MAX: Final = 1_048_576
"""Of a ``t`` file."""

_CHUNK_BYTES = 256 * 1024
_PARTIAL = ".partial"

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


class SegmentRefused(PrivacyLogError):
    """A sealed file is damaged, or is not what it is named for."""


class Written(NamedTuple):
    """A file as it was written."""

    sha256: str
    bytes: int


def encode(kind: str, table: pa.Table) -> pa.Buffer:
    """Return the Parquet file of a table of one of the ``SCHEMAS``.

    Args:
        kind: Of file.
        table: Its rows; of a derived kind, columns of names may be dictionaries.
    """
    return encode_groups(kind, [table])


def encode_groups(kind: str, tables: Iterable[pa.Table]) -> pa.Buffer:
    """Return the Parquet file of tables of one schema in a row, each of its own row groups.

    Args:
        kind: Of file.
        tables: As :func:`encode`; at least one.
    """
    sink = pa.BufferOutputStream()
    rest = iter(tables)
    first = next(rest)
    make = _truth_writer if kind == "t" else _derived_writer
    with make(kind, first.schema, sink) as parquet:
        for table in chain([first], rest):
            parquet.write_table(table, row_group_size=ROWS_OF_GROUP[kind])
    return sink.getvalue()


def _truth_writer(kind: str, schema: pa.Schema, sink: pa.NativeFile) -> pq.ParquetWriter:
    schema = SCHEMAS[kind]
    delta = [name for name in schema.names if name in _NUMBERS | _SPREAD]
    tokens = [field.name for field in schema if pa.types.is_fixed_size_binary(field.type)]
    return pq.ParquetWriter(
        sink,
        schema,
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=[path for path in _leaves(schema) if path not in {*delta, *tokens}],
        column_encoding={
            **dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
            **dict.fromkeys(tokens, "PLAIN"),
        },
    )


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


def write(
    file: Path, data: pa.Buffer | bytes, *, pause: Callable[[], None], disk: Disk = DISK
) -> Written:
    """Write a file whole, flushed, and under its name; one of that name is replaced.

    Args:
        file: Folders above it are made where they are missing.
        data: All of it.
        pause: Called after each 256 KiB, which are flushed then.
        disk: For fault tests.

    Raises:
        OSError: the disk refused. What is left has another name, which :func:`is_partial` knows.
    """
    _make_folders(file.parent)
    partial = file.with_name(f".{file.name}{_PARTIAL}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o600)
    view = memoryview(data)
    try:
        for offset in range(0, len(view), _CHUNK_BYTES):
            disk.write(descriptor, view[offset : offset + _CHUNK_BYTES], offset)
            disk.flush(descriptor)
            pause()
    finally:
        os.close(descriptor)
    disk.replace(partial, file)
    return Written(sha256(view).hexdigest(), len(view))


def is_partial(name: str) -> bool:
    """Say whether a file of this name was never finished."""
    return name.startswith(".") and name.endswith(_PARTIAL)


def reread(
    file: Path, written: Written, disk: Disk = DISK, *, data: pa.Buffer | bytes | None = None
) -> bytes:
    """Return what the disk holds of a file, not what the kernel remembers, once it is right.

    Args:
        file: Which.
        written: Its size and its hash.
        disk: For fault tests.
        data: What was written, where it is still at hand: to compare it costs less than to hash.

    Raises:
        SegmentRefused: it is missing, or is not what was written.
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SegmentRefused(f"{file}: missing") from None
    with os.fdopen(descriptor, "rb") as stream:
        disk.reread(descriptor)
        held = stream.read(written.bytes + 1)
    if data is None:
        is_right = len(held) == written.bytes and sha256(held).hexdigest() == written.sha256
    else:
        is_right = pa.py_buffer(held).equals(pa.py_buffer(data))
    if not is_right:
        raise SegmentRefused(f"{file}: is not what was written: the disk lies, or somebody wrote")
    return held


def rows_of(kind: str, source: Path | bytes) -> Iterator[pa.Table]:
    """Yield the rows of a file, a row group at a time; columns of names come as dictionaries.

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
                rows = parquet.read_row_group(group, use_threads=False)
                if len(rows):
                    yield rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SegmentRefused(f"{name}: is damaged, or no Parquet file: put it back") from error


def _make_folders(folder: Path) -> None:
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
