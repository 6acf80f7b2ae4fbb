"""The program beside the workers: seals what waits, ends at once, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from ksz_router.config import Archive, Config, Node, PrivacyLog
from ksz_router.daemon import sealer
from ksz_router.daemon.companion import Companion
from ksz_router.daemon.control import Channel, pair
from ksz_router.daemon.sealer import SealerProgram
from ksz_router.daemon.sealer_process import SLOT, missing_extra
from ksz_router.privacylog.archive.chain import newest
from ksz_router.privacylog.keys import make, quarter_of
from ksz_router.privacylog.slots import file_numbers
from tests.archive_ground import ORIGIN, Ground
from tests.privacylog_world import NEXT_QUARTER, QUARTER

LOG = structlog.get_logger()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A log whose leaves have waited for longer than they may: they are an hour old."""
    ground, now_ns = Ground(tmp_path), time.time_ns()
    world = ground.world
    world.now_ns = now_ns - 3600 * 10**9
    for quarter in {quarter_of(now_ns), quarter_of(world.now_ns)} - {QUARTER, NEXT_QUARTER}:
        make(world.keys, quarter)
    writer = world.open()
    writer.commit([world.request(1), world.outcome(1), world.request(2)], world.now_ns)
    writer.close()
    ground.sequence()
    return ground


def settings(ground: Ground) -> Config:
    return Config(
        node=Node("router-a"),
        privacy_log=PrivacyLog(path=str(ground.world.log), keys=str(ground.world.keys)),
        archive=Archive(
            path=str(ground.archive), origin=ORIGIN, keys=str(ground.folder / "checkpoint-keys")
        ),
    )


def with_sealer(ground: Ground, act: Callable[[Companion], Awaitable[None]]) -> None:
    """Run the program as the supervisor does, until ``act`` is done, and stop it."""

    async def main() -> None:
        sealer = Companion("sealer", settings(ground), LOG)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sealer.keep)
            with trio.fail_after(30):
                await act(sealer)
            with trio.fail_after(5):
                await sealer.stop()
            nursery.cancel_scope.cancel()

    trio.run(main)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  it happens in another process
        await trio.sleep(0.02)


def test_it_seals_and_ends_when_told(ground: Ground) -> None:
    async def act(sealer: Companion) -> None:
        await until(lambda: newest(ground.archive))
        await until((ground.archive / "catalog" / "index.msgpack").exists)
        await until(lambda: sealer.report)
        await sealer.look()
        await until(lambda: sealer.state == "3 entries sealed")

    with_sealer(ground, act)
    assert ground.truth() == ground.records
    assert len(file_numbers(ground.world.log / "s0")) == 1


def test_it_is_killed_and_goes_on(ground: Ground) -> None:
    async def act(sealer: Companion) -> None:
        await until(lambda: sealer.process is not None)
        assert sealer.process is not None
        sealer.process.send_signal(signal.SIGKILL)
        await until(lambda: newest(ground.archive))

    with_sealer(ground, act)
    assert ground.truth() == ground.records


def test_sigterm_ends_it_at_once(ground: Ground) -> None:
    async def act(sealer: Companion) -> None:
        await until(lambda: sealer.report)
        assert sealer.process is not None
        process = sealer.process
        process.send_signal(signal.SIGTERM)
        await process.wait()
        assert process.returncode == 0

    with_sealer(ground, act)


def test_it_lets_others_go_first(ground: Ground) -> None:
    async def act(sealer: Companion) -> None:
        await until(lambda: sealer.report)
        assert sealer.process is not None
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, sealer.process.pid) == min(mine + 10, 19)

    with_sealer(ground, act)


class Watched(SealerProgram):
    """Notes under which scheduling class each turn is worked, and whether it is behind."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.turns: list[tuple[bool, int]] = []

    def _turn(self) -> bool:
        self.turns.append((self._pace.is_behind, os.sched_getscheduler(0)))
        return super()._turn()


def test_it_works_in_the_idle_class_unless_it_is_behind(ground: Ground) -> None:
    """A niced thread keeps a processor to the end of its time slice; one of the idle class not."""
    now_us = time.time_ns() // 1000
    writer = ground.world.open(slot=SLOT)

    async def main() -> None:
        here, there = map(Channel, pair())
        program = Watched(settings(ground), writer, here, LOG)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.run)
            await until(lambda: newest(ground.archive))
            program._pace.look(20_000_000, 16_000_001, now_us)
            turns = len(program.turns)
            await until(lambda: len(program.turns) > turns + 1)
            nursery.cancel_scope.cancel()
        here.close()
        there.close()
        assert dict(program.turns) == {False: os.SCHED_IDLE, True: os.SCHED_OTHER}

    trio.run(main)
    writer.close()


class Endless(Watched):
    """Has a step that takes as long as little waits, with the pauses that steps have."""

    def _turn(self) -> bool:
        behind = super()._turn
        self.turns.append((self._pace.is_behind, os.sched_getscheduler(0)))
        while not self._pace.is_behind:
            self._pace()
        self._pace()
        self.turns.pop()
        return behind()


def test_a_step_of_the_idle_class_ends_when_too_much_waits(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is seen while the step is under way, and begun again where others give way to it."""
    monkeypatch.setattr(sealer, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(sealer, "_BEHIND_LEAVES", 2)
    writer = ground.world.open(slot=SLOT)

    async def main() -> None:
        here, there = map(Channel, pair())
        program = Endless(settings(ground), writer, here, LOG)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program.run)
                await until(lambda: newest(ground.archive))
                nursery.cancel_scope.cancel()
        here.close()
        there.close()
        assert program.turns[:2] == [(False, os.SCHED_IDLE), (True, os.SCHED_OTHER)]

    trio.run(main)
    writer.close()
    assert ground.truth() == ground.records


def test_what_it_cannot_use_ends_it(ground: Ground, capfd: pytest.CaptureFixture[str]) -> None:
    """The reason is one line of the operational log; it is tried again later."""
    (ground.archive / "tree" / "checkpoint").write_bytes(b"no note")

    async def act(sealer: Companion) -> None:
        await until(lambda: sealer.restarts)

    with_sealer(ground, act)
    assert newest(ground.archive) is None
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    (event,) = [event for event in events if event["event"] == "cannot_seal"]
    assert event["process"] == "sealer"


def test_without_the_extra_one_sentence_says_what_to_install() -> None:
    """Where pyarrow cannot be found the program says so, and nothing of it is imported before."""
    script = """
import importlib.util, json, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pyarrow" else found(name, *rest)
from ksz_router.daemon.sealer_process import missing_extra
print(json.dumps([missing_extra(), "pyarrow" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    sentence, was_imported = json.loads(done.stdout)
    assert "install ksz-router[audit]" in sentence
    assert "pyarrow" in sentence
    assert not was_imported
    assert missing_extra() == ""
