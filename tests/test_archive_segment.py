"""Sealed files: what is written is read again, paced and flushed, and nothing half is believed."""

import errno
from contextlib import nullcontext, suppress
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.pieces import (
    Pieces,
    SegmentRefused,
    check,
    is_partial,
    reread,
    write,
)
from ksz_router.privacylog.archive.schema import SCHEMAS, TRUTH
from ksz_router.privacylog.archive.segment import encode, rows_of, write_groups
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import Entry, Kind, canonical

CHUNK = 256 * 1024


def truth(count: int) -> pa.Table:
    """Rows of entries with little in them, the rarer fields too."""
    records = [
        canonical(
            Entry(
                kind=Kind.REQUEST,
                at_us=1_795_000_000_000_000 + n,
                exchange=n.to_bytes(16, "big"),
                person=None if n % 3 else bytes([n % 7]) * 16,
                destinations=("0200881951",) * (n % 3),
                counts=((1, n),) * (n % 2),
                digest=bytes(32) if n % 2 else None,
            )
        )
        for n in range(count)
    ]
    return to_table(
        records, first_seq=0, q="2026Q4", node="router-a", slots=["w0"] * count,
        record_numbers=range(count),
    )  # fmt: skip


class Watched(Disk):
    """Says what was asked of it, and refuses from one call on."""

    def __init__(self, refuse_from: int = 10**9) -> None:
        self.calls: list[tuple[str, int]] = []
        self._refuse_from = refuse_from

    def _call(self, what: str, size: int = 0) -> None:
        self.calls.append((what, size))
        if len(self.calls) > self._refuse_from:
            raise OSError(errno.EIO, "refused")

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self._call("write", len(data))
        super().write(descriptor, data, offset)

    def flush(self, descriptor: int) -> None:
        self._call("flush")
        super().flush(descriptor)

    def replace(self, partial: Path, file: Path) -> None:
        self._call("replace")
        super().replace(partial, file)


@pytest.mark.parametrize("rows", [0, 1, 70_000])
def test_rows_come_back_by_groups(rows: int) -> None:
    table = truth(rows)
    data = encode("t", table).to_pybytes()
    groups = list(rows_of("t", data))
    assert [len(group) for group in groups] == [
        n for n in (min(rows, 65_536), rows - 65_536) if n > 0
    ]
    assert [r for group in groups for r in to_records(group)] == to_records(table)
    if rows:
        assert pa.concat_tables(group.cast(TRUTH) for group in groups).equals(table)


def test_the_same_rows_give_the_same_bytes() -> None:
    assert encode("t", truth(100)).equals(encode("t", truth(100)))


def test_columns_are_encoded_as_the_format_says() -> None:
    """Tokens as they are, names by dictionaries, numbers that rise by their differences."""
    parquet = pq.ParquetFile(pa.BufferReader(encode("t", truth(3000))))
    group = parquet.metadata.row_group(0)
    columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    for name in ("seq", "record", "at_us", "router_us", "request_bytes"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
    for name in ("exchange", "person", "digest"):
        assert not columns[name].has_dictionary_page
        assert columns[name].physical_type == "FIXED_LEN_BYTE_ARRAY"
    for name in ("slot", "service", "code", "line_sector", "destinations.list.element"):
        assert columns[name].has_dictionary_page


def test_what_a_person_is_asked_for_in_is_quick_to_unpack() -> None:
    """Small row groups, as LZ4; a file of use is packed as tightly as one of truth."""
    for kind, groups, packed in (("p", [4096, 904], "LZ4"), ("u", [5000], "ZSTD")):
        schema = SCHEMAS[kind]
        empty = {name: pa.nulls(5000, schema.field(name).type) for name in schema.names}
        parquet = pq.ParquetFile(pa.BufferReader(encode(kind, pa.table(empty, schema=schema))))
        held = [parquet.metadata.row_group(at) for at in range(parquet.num_row_groups)]
        assert [group.num_rows for group in held] == groups
        assert {group.column(at).compression for group in held for at in range(len(schema))} == {
            packed
        }


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_each_kind_of_file_is_written(kind: str) -> None:
    table = SCHEMAS[kind].empty_table()
    assert [*rows_of(kind, encode(kind, table).to_pybytes())] == []


def test_a_file_is_written_in_pieces_with_a_pause_after_each(tmp_path: Path) -> None:
    disk, pauses = Watched(), [0]
    data = bytes(2 * CHUNK + 1)
    file = tmp_path / "q=2026Q4" / "t" / "x.parquet"

    def pause() -> None:
        pauses[0] += 1
        assert not file.exists()
        assert disk.calls[-1] == ("flush", 0)

    written = write(file, data, pause=pause, disk=disk)
    assert pauses == [3]
    assert [size for what, size in disk.calls if what == "write"] == [CHUNK, CHUNK, 1]
    assert disk.calls[-1][0] == "replace"
    assert reread(file, written) == data
    assert [path.name for path in file.parent.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize("refuse_from", range(5))
def test_a_disk_that_refuses_leaves_no_file_of_that_name(tmp_path: Path, refuse_from: int) -> None:
    file = tmp_path / "x.parquet"
    with pytest.raises(OSError, match="refused"):
        write(file, bytes(CHUNK + 1), pause=lambda: None, disk=Watched(refuse_from))
    assert not file.exists()
    assert all(is_partial(path.name) for path in tmp_path.iterdir())
    written = write(file, b"whole", pause=lambda: None)
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]
    assert reread(file, written) == b"whole"


@pytest.mark.parametrize("refuse_from", range(4))
def test_a_file_that_is_written_while_it_is_made_is_no_other(
    tmp_path: Path, refuse_from: int
) -> None:
    """What fails below arrow is told as it was, and nothing is written to that file any more."""
    file, disk = tmp_path / "x.parquet", Watched(refuse_from)
    table = SCHEMAS["k"].empty_table()
    with pytest.raises(OSError, match="refused") if refuse_from < 3 else nullcontext():
        write_groups(file, "k", [table], pause=lambda: None, disk=disk)
    assert len(disk.calls) == min(refuse_from + 1, 3)
    assert file.exists() is (refuse_from == 3)
    written = write_groups(file, "k", [table], pause=lambda: None)
    check(file, written)
    assert file.read_bytes() == encode("k", table).to_pybytes()


def test_after_a_failure_nothing_more_is_written(tmp_path: Path) -> None:
    """Whatever arrow still hands over to end its file; and it does not get its name."""
    disk = Watched(1)
    with (
        pytest.raises(OSError, match="could not be written"),
        Pieces(tmp_path / "x.parquet", lambda: None, disk) as pieces,
    ):
        with suppress(OSError):
            pieces.write(bytes(CHUNK))
        pieces.write(bytes(2 * CHUNK))
    assert [what for what, _ in disk.calls] == ["write", "flush"]
    assert all(is_partial(path.name) for path in tmp_path.iterdir())


def test_a_pause_may_end_what_is_written(tmp_path: Path) -> None:
    """Arrow hands on what it raises, and the file does not get its name."""

    def pause() -> None:
        raise KeyError("enough")

    rows = range(CHUNK // 8)
    keys = pa.array([sha256(b"%d" % row).digest()[:16] for row in rows], pa.binary(16))
    columns = {"q": ["2026Q4"] * len(rows), "b": pa.array([0] * len(rows), pa.int16())}
    table = pa.table({**columns, "node": ["a"] * len(rows), "key": keys, "seq": [*rows]})
    for groups in ([table], [table, table]):
        disk = Watched()
        with pytest.raises(KeyError, match="enough"):
            write_groups(tmp_path / "x.parquet", "k", groups, pause=pause, disk=disk)
        assert [what for what, _ in disk.calls] == ["write", "flush"]
    assert all(is_partial(path.name) for path in tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "missing"])
def test_what_the_disk_holds_otherwise_is_refused(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "x.parquet"
    data = bytearray(b"content of a file")
    written = write(file, bytes(data), pause=lambda: None)
    if damage == "flipped":
        data[3] ^= 1
    elif damage == "shorter":
        del data[-1]
    elif damage == "longer":
        data += b"!"
    file.write_bytes(data)
    if damage == "missing":
        file.unlink()
    with pytest.raises(SegmentRefused):
        reread(file, written)


def test_what_is_no_sealed_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    data = bytearray(encode("t", truth(50)).to_pybytes())
    with pytest.raises(SegmentRefused):
        list(rows_of("k", bytes(data)))
    data[len(data) // 3 : len(data) // 3 + 64] = bytes(64)
    file.write_bytes(data)
    with pytest.raises(SegmentRefused):
        list(rows_of("t", file))
    file.write_bytes(b"no Parquet")
    with pytest.raises(SegmentRefused):
        list(rows_of("t", file))
