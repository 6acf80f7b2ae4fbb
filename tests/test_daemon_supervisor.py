"""The supervisor's patience, and what it makes ready before any worker runs."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from ksz_router import config
from ksz_router.daemon import ledger_from_log, oplog, orphans
from ksz_router.daemon.control import Channel, Report, pair, stop_seconds
from ksz_router.daemon.journal import Journal
from ksz_router.daemon.supervisor import Supervisor
from ksz_router.ledger import Claim, Granted
from ksz_router.privacylog.entry import Entry, Kind, canonical
from ksz_router.privacylog.header import PAGE
from ksz_router.privacylog.keys import make, quarter_begin_ns
from ksz_router.privacylog.recovery import LogCorrupt
from ksz_router.privacylog.slots import file_of
from ksz_router.privacylog.taking import SlotTaken, take_slot

NOW_NS = quarter_begin_ns("2026Q4") + 1


@pytest.fixture
def settings(tmp_path: Path) -> config.Config:
    (tmp_path / "log").mkdir()
    make(tmp_path / "keys", "2026Q4")
    log = config.PrivacyLog(str(tmp_path / "log"), str(tmp_path / "keys"), 1 << 20)
    settings = config.Config(privacy_log=log, ledger=config.Ledger(str(tmp_path / "ledger")))
    assert ledger_from_log.ready(settings, NOW_NS) == 0
    return settings


def opened(settings: config.Config, index: int) -> Journal:
    journal = Journal(settings, index, lambda: 0, lambda: NOW_NS)
    journal.open()
    return journal


def test_no_ledger_is_made_beside_a_worker_that_goes_by_the_one_before(
    settings: config.Config, tmp_path: Path
) -> None:
    """What it claims until it ends would be in none: a retry would be sent once more."""
    journal = opened(settings, 0)
    shutil.rmtree(tmp_path / "ledger")
    with pytest.raises(SlotTaken):
        ledger_from_log.ready(settings, NOW_NS)
    assert not (tmp_path / "ledger").exists()
    journal.close()
    assert ledger_from_log.ready(settings, NOW_NS) == 0
    opened(settings, 0).close()


@pytest.mark.parametrize("hours", [1, 23])
def test_a_ticket_that_lives_on_by_its_retries_is_known_from_its_first_attempt(
    settings: config.Config, tmp_path: Path, hours: int
) -> None:
    """The time of a ticket counts from its latest attempt; what came of the others still holds."""
    first_us, hour_us = NOW_NS // 1000, 3_600_000_000
    ids = [(first_us // 1000 + n).to_bytes(6, "big") + bytes(10) for n in range(3)]
    ticket, content = b"t" * 16, b"c" * 16
    journal = opened(settings, 0)
    for n, (recipients, codes) in enumerate(
        [(("1" * 10, "2" * 10), (10001, 9004)), (("2" * 10,), (9001,)), (("2" * 10,), (9001,))]
    ):
        at_us = first_us + n * hours * hour_us
        attempt = Entry(
            kind=Kind.REQUEST, at_us=at_us, exchange=ids[n], code=0, stage=10, ticket=ticket,
            content=content, attempt=n + 1, first=ids[0] if n else None, destinations=recipients,
            requester="0200000009",
        )  # fmt: skip
        ways = [
            Entry(
                kind=Kind.RECIPIENT, at_us=at_us + 1, exchange=ids[n], code=code,
                stage=code // 1000, destinations=(kbo,), requester="0200000009",
            )
            for kbo, code in zip(recipients, codes, strict=True)
        ]  # fmt: skip
        end = msgspec.structs.replace(ways[0], kind=Kind.OUTCOME, destinations=recipients)
        journal.recorder.submit([canonical(entry) for entry in (attempt, *ways, end)])
        journal.recorder.commit()
    journal.close()
    shutil.rmtree(tmp_path / "ledger")
    now_us = first_us + (2 * hours + 1) * hour_us
    assert ledger_from_log.ready(settings, now_us * 1000) == 1
    with closing(ledger_from_log.open_ledger(settings)) as ledger:
        wish = Claim([(ticket, content)], bytes(16), 0, ("1" * 10, "2" * 10), is_to_all=True)
        (held,) = ledger.claim([wish], now_us)
    assert held == Granted(ids[0], 4, ("2" * 10,), frozenset({"2" * 10}), {"1" * 10: 10001})


def test_no_ledger_is_made_from_a_damaged_log(settings: config.Config, tmp_path: Path) -> None:
    """What stood behind the damage is not known, so neither is what was submitted."""
    journal = opened(settings, 0)
    for _ in range(3):
        journal.recorder.submit([journal.entries.summary("somebody", {})])
        journal.recorder.commit()
    journal.close()
    with file_of(tmp_path / "log" / "w0", 1).open("r+b") as file:
        file.seek(2 * PAGE + 100)
        file.write(b"damage")
    shutil.rmtree(tmp_path / "ledger")
    with pytest.raises(LogCorrupt, match="what was submitted"):
        ledger_from_log.ready(settings, NOW_NS)
    assert not (tmp_path / "ledger").exists()


def test_who_waits_for_an_orphan_lets_go_of_the_ledger_meanwhile(
    settings: config.Config, tmp_path: Path
) -> None:
    """LMDB must not be opened twice in one process: each attempt closes what it opened."""
    index = settings.node.workers
    journal = opened(settings, index)
    name = bytes(16)
    journal.ledger.claim([Claim([(name, name)], name, index, ("0200000001",), is_to_all=False)], 1)
    journal.close()
    lock = take_slot(tmp_path / "log", tmp_path / "log" / f"w{index}")
    kept = []
    for _ in range(2):
        with pytest.raises(SlotTaken) as caught:
            orphans.settle_orphans(settings, NOW_NS)
        kept.append(caught)  # its traceback keeps the frames, and what they hold
    os.close(lock)
    assert orphans.settle_orphans(settings, NOW_NS) == [f"w{index}"]


def test_a_worker_that_drains_is_not_taken_for_mute(settings: config.Config) -> None:
    """It reads no orders any more; it is killed when a stop may last no longer, and not before."""

    async def main() -> None:
        supervisor = Supervisor(settings, Path("none"), oplog.set_up("supervisor"))
        (worker, *_) = supervisor.workers
        ours, theirs = pair()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", "import signal; signal.pause()"]
        )
        worker.began(process, Channel(ours))
        worker.heard(Report("ready"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor._watch)
            await worker.dismiss()
            await trio.sleep(settings.stop.drain_seconds + 1)
            assert process.poll() is None
            await trio.sleep(stop_seconds(settings) - settings.stop.drain_seconds + 2)
            await process.wait()
            nursery.cancel_scope.cancel()
        worker.ended()
        theirs.close()

    trio.run(main, clock=MockClock(autojump_threshold=0.01))


def test_the_supervisor_starts_without_a_workers_parts() -> None:
    """It never sees a message, and every start of a router waits for its imports."""
    code = "import ksz_router.cli.run, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "ksz_router.daemon.supervisor" in imported
    unwanted = {"prometheus_client", "ksz_router.daemon.loop", "ksz_router.rulebook.compile"}
    assert not imported & unwanted
