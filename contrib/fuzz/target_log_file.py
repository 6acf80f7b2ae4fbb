"""A log file that somebody changed: what is read back is a beginning of what was written.

Frames are encrypted, so random bytes are never one. The input is a list of changes to a good file.
"""

from collections.abc import Iterator

from contrib.fuzz import targets
from contrib.fuzz.target_entry import seeds as entries
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing, KeysError, make
from ksz_router.privacylog.recovery import End, LogCorrupt, scan
from ksz_router.privacylog.writer import Writer

_PAGE = 4096
_CHANGE_BYTES = 6
_QUARTER, _NOW_NS = "2026Q4", 1_795_300_000_000_000_000
_FOLDER = targets.scratch("log_file")


def _good_file() -> tuple[bytes, list[bytes], KeyRing]:
    keys = _FOLDER / "keys"
    make(keys, _QUARTER)
    writer = Writer.open(
        _FOLDER / "log", slot="w0", node="fuzz", keys_folder=keys, now_ns=_NOW_NS,
        file_bytes=16 * _PAGE,
    )  # fmt: skip
    records = list(entries())
    for record in records:
        writer.commit([record, record], _NOW_NS)
    (file,) = (_FOLDER / "log" / "w0").glob("*.wal")
    content = file.read_bytes()  # before it is closed: as after a crash
    return content, [record for record in records for _ in range(2)], KeyRing(keys)


_CONTENT, _RECORDS, _KEYS = _good_file()
_FILE = _FOLDER / "000001.wal"


def one_input(data: bytes) -> None:
    """Six bytes a change: what to do, at which byte (three), and two bytes to do it with."""
    content = bytearray(_CONTENT)
    for at in range(0, min(len(data), 20 * _CHANGE_BYTES), _CHANGE_BYTES):
        _change(content, data[at : at + _CHANGE_BYTES].ljust(_CHANGE_BYTES, b"\0"))
    _FILE.write_bytes(content)
    found: list[bytes] = []

    def visit(frame: Frame) -> None:
        found.extend(frame.records)

    try:
        result = scan(_FILE, _KEYS, visit)
    except (LogCorrupt, KeysError):
        assert not found
        return
    assert found == _RECORDS[: len(found)], "records that were never written"
    assert result.next_record - result.header.first_record == len(found)
    if bytes(content) == _CONTENT:
        assert result.end is End.OPEN
    elif result.end in (End.OPEN, End.CLOSED):
        rest = content[result.offset : result.header.file_bytes]
        assert not any(rest), "damage that nobody saw"


def _change(content: bytearray, change: bytes) -> None:
    what, place, value = change[0] % 6, int.from_bytes(change[1:4], "big"), change[4:]
    if not content:
        return
    at = place % len(content)
    page = at // _PAGE * _PAGE
    other = int.from_bytes(value, "big") % max(1, len(content) // _PAGE) * _PAGE
    match what:
        case 0:
            content[at] ^= value[0]
        case 1:
            content[at : at + 2] = value
        case 2:
            del content[at:]
        case 3:
            content[page : page + _PAGE] = bytes(len(content[page : page + _PAGE]))
        case 4:
            content[page : page + _PAGE] = content[other : other + _PAGE]
        case _:
            content[at : at + value[1]] = bytes(min(value[1], len(content) - at))


def seeds() -> Iterator[bytes]:
    """Nothing, and a change of each kind in the header, in a frame and in padding."""
    yield b""
    for what in range(6):
        for place in (8, 4_100, 8_000, 40_000):
            yield bytes([what]) + place.to_bytes(3, "big") + b"\1\2"


if __name__ == "__main__":
    targets.run(__file__)
