"""A page that is damaged, or no room: no change is taken, what can be read is, and all goes on."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from contrib.stand import ROOT
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_jobs import Failure, Found, Verdict
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.directory import folder
from ksz_router.directory.change import Applied, Change, Operation
from ksz_router.directory.check import check
from ksz_router.directory.hindrance import DirectoryFullError, NotTakenError, PageDamagedError
from ksz_router.directory.packing import DamagedError, pack_key
from ksz_router.directory.writer import Writer
from ksz_router.model import OPEN, Line
from tests import directory_full
from tests.daemon_ground import load_directory
from tests.directory_files import number
from tests.integration.test_noroom import TMPFS, may_mount
from tests.test_directory_services import NOW_MS, exchange
from tests.worlds import LINES

PERSONS = [number(counter, day) for day in (850730, 900101) for counter in range(998, 500, -1)]
"""Enough for a tree of many pages."""

FIRST, LAST = min(PERSONS), max(PERSONS)
_PAGE_BYTES = 4096
_FLAGS = struct.Struct("<H")
_FLAGS_AT = 10
"""In the head of a page: behind its number and two bytes of padding."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    load_directory(tmp_path / "directory", dict.fromkeys(PERSONS, LINES), {})
    return tmp_path / "directory"


@pytest.fixture
def writer(target: Path) -> Iterator[Writer]:
    opened = Writer.open(target)
    yield opened
    opened.close()


def inscription(count: int, of: str) -> Change:
    line = Line(17, 1, 3, 0, 20300101, OPEN)
    return Change(exchange(count), of, Operation.INSCRIBE, line)


def damage_pages_of(target: Path, insz: str) -> None:
    """Make every page that holds the number one that can be none, under the running writer."""
    file = folder.current(target) / "data.mdb"
    data = file.read_bytes()
    pages = {
        at // _PAGE_BYTES * _PAGE_BYTES
        for at in range(len(data))
        if data.startswith(pack_key(insz), at)
    }
    assert pages
    with file.open("r+b") as stream:
        for page in pages:
            os.pwrite(stream.fileno(), _FLAGS.pack(0), page + _FLAGS_AT)


def test_a_damaged_page_ends_no_program_and_nothing_is_written_any_more(
    target: Path, writer: Writer
) -> None:
    """The batch is left whole, so are all that follow; persons on other pages can be read."""
    assert isinstance(writer.apply([inscription(1, LAST)], NOW_MS * 1000)[0], Applied)
    before = writer.version
    damage_pages_of(target, FIRST)
    with pytest.raises(PageDamagedError, match="until the directory is restored"):
        writer.apply([inscription(2, LAST), inscription(3, FIRST)], NOW_MS * 1000)
    with pytest.raises(PageDamagedError):  # though its own page is sound
        writer.apply([inscription(2, LAST)], NOW_MS * 1000)
    with pytest.raises(PageDamagedError):
        writer.remove_notices([b"any"])
    (found,) = writer.look_up([LAST])
    assert found is not None
    assert sum(line.capacity == 3 for line in found.lines) == 1
    with pytest.raises(DamagedError, match="cannot read it"):
        writer.look_up([FIRST])
    assert (writer.version, writer.note_of(exchange(2))) == (before, None)


def in_batches(writer: Writer, *asked: Change | str) -> tuple[list[Any], list[str], list[str]]:
    """What came of changes and look-ups, one after the other; what was told and shown of it."""
    seen: list[Any] = []
    told: list[str] = []
    shown: list[str] = []

    async def main() -> None:
        metrics = DirectoryMetrics()
        batches = Batches(writer, metrics, lambda: NOW_MS * 1000)
        batches.hindered = lambda error: told.append(str(error))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(batches.run)
            for each in asked:
                settled = trio.Event()

                def done(found: Verdict | Found | Failure, settled: trio.Event = settled) -> None:
                    seen.append(found)
                    settled.set()

                if isinstance(each, Change):
                    batches.change(each, 60, done)
                else:
                    batches.look_up(each, 60, done)
                await settled.wait()
                shown.append(metrics.hindrance)
            batches.close()

    trio.run(main)
    return seen, told, shown


def test_the_program_refuses_says_so_once_and_answers_look_ups(
    target: Path, writer: Writer
) -> None:
    """It does not end, so it is not started anew to meet the same page again and again."""
    damage_pages_of(target, FIRST)
    seen, told, shown = in_batches(
        writer, inscription(1, FIRST), LAST, FIRST, inscription(2, LAST), inscription(3, LAST)
    )
    assert seen[0] is seen[3] is seen[4] is Failure.DAMAGED
    assert isinstance(seen[1], Found)
    assert seen[2] is Failure.DAMAGED
    assert len(told) == 1
    assert shown == ["damaged"] * 5
    assert not any(insz in told[0] for insz in (FIRST, LAST))


def test_work_of_the_program_itself_hears_that_nothing_is_written(
    target: Path, writer: Writer
) -> None:
    """Notices and mailboxes wait for a mend, and end nothing."""
    damage_pages_of(target, FIRST)
    with pytest.raises(PageDamagedError):
        writer.apply([inscription(1, FIRST)], NOW_MS * 1000)

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics(), lambda: NOW_MS * 1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(batches.run)
            with pytest.raises(NotTakenError):
                await batches.with_writer(lambda used: used.remove_notices([b"any"]))
            assert (await batches.with_writer(Writer.backlog)).notices == 0
            batches.close()

    trio.run(main)


def test_a_full_map_is_said_and_nothing_of_the_batch_is_applied(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program refuses, reads on, and takes the very changes when the map is larger."""
    size = (folder.current(target) / "data.mdb").stat().st_size
    with monkeypatch.context() as patched:
        patched.setattr(folder, "MAP_BYTES", size + 16 * _PAGE_BYTES)
        writer = Writer.open(target)
        asked = [inscription(count, of) for count, of in enumerate(PERSONS)]
        with pytest.raises(DirectoryFullError, match="the size that its map may have"):
            writer.apply(asked, NOW_MS * 1000)
        found = [person for person in writer.look_up(PERSONS) if person is not None]
        assert not any(line.capacity == 3 for person in found for line in person.lines)
        assert all(writer.note_of(change.exchange) is None for change in asked)
        assert writer.version == 1
        assert isinstance(writer.apply(asked[:1], NOW_MS * 1000)[0], Applied), "it has room for one"
        fill = iter(asked[1:])  # one by one until it is full again
        while True:
            change = next(fill)
            seen, told, shown = in_batches(writer, change, change.number)
            if shown[0]:
                break
        assert seen[0] is Failure.NO_ROOM
        assert isinstance(seen[1], Found)
        assert shown == ["full", "full"]
        assert len(told) == 1
        before = writer.version
        writer.close()
    again = Writer.open(target)
    verdicts = again.apply(asked, NOW_MS * 1000)
    again.close()
    repeated = [isinstance(verdict, Applied) and verdict.repeated for verdict in verdicts]
    assert repeated == [True] * (before - 1) + [False] * (len(asked) - before + 1)
    assert all(isinstance(verdict, Applied) for verdict in verdicts)
    assert check(target) == []


def test_a_full_disk_is_said_and_room_lets_it_go_on(tmp_path: Path) -> None:
    """A file system of its own, filled to the last byte under the writer, and emptied again."""
    if not may_mount(tmp_path):
        pytest.skip("this kernel lets no ordinary user mount a tmpfs in a namespace of his own")
    mount = TMPFS.format(size="4m", folder=tmp_path)
    line = [
        "unshare",
        "-Urm",
        "sh",
        "-c",
        mount,
        "sh",
        sys.executable,
        "-m",
        "tests.directory_full",
    ]
    done = subprocess.run([*line, tmp_path], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    *taken, full, still, mended = json.loads(done.stdout)
    persons = len(directory_full.PERSONS)
    for step, seen in enumerate(taken, start=1):
        assert seen == {
            "version": 1 + step * persons, "error": "", "noted": persons, "held": persons,
        }  # fmt: skip
    for seen in (full, still):
        assert seen["error"].startswith("DirectoryFullError: ")
        assert "its disk has no room left" in seen["error"]
        assert (seen["version"], seen["noted"], seen["held"]) == (taken[-1]["version"], 0, 0)
    assert (mended["error"], mended["noted"], mended["held"]) == ("", persons, persons)
