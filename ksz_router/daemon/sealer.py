"""What the process of the sealer does, in turn: seal what waits, merge, sweep.

It needs the extra ``audit``. It may be ended at any moment, and is: what was under way then is no
part of the archive, and the next run does it again.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from ksz_router.config import Config
from ksz_router.daemon.control import Channel, Report, Stop
from ksz_router.daemon.ledger_from_log import HOUR_NS
from ksz_router.daemon.niced import when_idle
from ksz_router.daemon.pacer import REST, Pacer
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.seal import Grounds, Sealer
from ksz_router.privacylog.archive.sweep import Leftovers, Limits, sweep_log
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tree.checkpoint import VKEYS_FILE
from ksz_router.privacylog.tree.note import read_vkeys
from ksz_router.privacylog.writer import Writer

_EVERY_SECONDS = 1.0
_SWEEP_SECONDS = 60.0
_LOOK_SECONDS = 5.0
"""From one look at what waits to the next, while a step is under way."""
_DAY_US = 86_400_000_000
_PIECE_SECONDS = 0.002
"""Between two pieces that are written, at least."""
_REST_AT_EASE = 15.0
"""So much longer than it worked it rests, where little waits."""
_LAGS_LEAVES = 12_000_000
"""Where more waits, it rests as others do."""
_BEHIND_LEAVES = 16_000_000
"""Where more waits, it does not rest any more: some three gigabytes of write-ahead files."""
_TRAFFIC_PER_S = 100.0
"""Entries: where fewer come there is nobody to give way to."""


class HandedOver(Exception):
    """What was begun in the idle class is to be begun again outside it."""


class SealerPace:
    """Rests between two pieces that are written.

    Args:
        pacer: Of the process.
        rest: Sleeps.
    """

    def __init__(self, pacer: Pacer, rest: Callable[[float], None]) -> None:
        self._pacer = pacer
        self._pacer.rest = _REST_AT_EASE
        self._rest = rest
        self._seen: tuple[int, int] | None = None
        self.is_behind = False
        """What waits may outgrow the disk: it works as soon as others do."""
        self.in_idle_class = False
        """What is under way is in the idle class, which its thread cannot leave."""

    def count(self, waiting: int) -> None:
        """See how many leaves wait; called beside what is under way, too."""
        self.is_behind = waiting > _BEHIND_LEAVES

    def look(self, leaves: int, waiting: int, now_us: int) -> None:
        """See what is going on: how many leaves there are, and how many of them wait."""
        self.count(waiting)
        if self._seen is not None and now_us > self._seen[1]:
            per_s = (leaves - self._seen[0]) * 1e6 / (now_us - self._seen[1])
            self._pacer.gives_way = per_s > _TRAFFIC_PER_S and not self.is_behind
        self._pacer.rest = _REST_AT_EASE if waiting <= _LAGS_LEAVES else REST
        self._seen = leaves, now_us

    def __call__(self) -> None:
        """Rest for as long as is due after what was done since the last time.

        Raises:
            HandedOver: it is far behind, and in the idle class.
        """
        if self.is_behind and self.in_idle_class:
            raise HandedOver
        self._rest(max(self._pacer.due_s(), _PIECE_SECONDS))
        self._pacer.begin()


class SealerProgram:
    """Seals and sweeps, in turn, and says how it is.

    Args:
        settings: Say how long what is kept.
        writer: Of the slot ``s0``.
    """

    def __init__(
        self,
        settings: Config,
        writer: Writer,
        channel: Channel,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._channel = channel
        self._log = log
        self._pace = SealerPace(Pacer(time.process_time), time.sleep)
        self._swept_at = -_SWEEP_SECONDS
        self.is_idle = True
        """Nothing is under way, so the writer may be closed."""
        self._archive = Path(settings.archive.path)
        self._keys = KeyRing(Path(settings.privacy_log.keys))
        self._leftovers = Leftovers(self._archive)
        self._sealer = Sealer(
            Grounds(
                archive=self._archive,
                log=Path(settings.privacy_log.path),
                keys=self._keys,
                node=settings.node.name,
                origin=settings.archive.origin,
                vkeys=read_vkeys(Path(settings.archive.keys) / VKEYS_FILE),
            ),
            writer,
            now_us=time.time_ns() // 1000,
            pause=self._pace,
        )

    async def run(self) -> None:
        """Work until told to stop; what is under way then is left as it is."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey, nursery.cancel_scope)
            nursery.start_soon(self._watch)
            await self._channel.send(self._report("ready"))
            while True:
                self.is_idle = False
                found = await trio.to_thread.run_sync(self._work, abandon_on_cancel=True)
                self.is_idle = True
                if not found:
                    await trio.sleep(_EVERY_SECONDS)

    async def _watch(self) -> None:
        """Look now and then how far behind it is: in the idle class a step may take minutes."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            # What is wrong with the checkpoint the next step says.
            with suppress(PrivacyLogError, OSError):
                checkpoint = self._sealer.signed()
                if checkpoint is not None:
                    self._pace.count(checkpoint.size - self._sealer.sealed_leaves)

    def _work(self) -> bool:
        if self._pace.is_behind:
            return self._turn()
        self._pace.in_idle_class = True
        try:
            return when_idle(self._turn)
        except HandedOver:
            return True
        finally:
            self._pace.in_idle_class = False

    def _turn(self) -> bool:
        """Seal a step, else sweep and merge; say whether there may be more to do at once."""
        now_us = time.time_ns() // 1000
        if self._sealer.is_due(now_us):
            self._step(now_us)
            return True
        if time.monotonic() - self._swept_at >= _SWEEP_SECONDS:
            self._sweep(now_us)
        return self._merge(now_us)

    def _step(self, now_us: int) -> None:
        checkpoint, begin = self._sealer.signed(), self._sealer.sealed_leaves
        if checkpoint is not None:
            self._pace.look(checkpoint.size, checkpoint.size - begin, now_us)
        began = time.perf_counter()
        manifest = self._sealer.step(now_us)
        if manifest is not None:
            self._log.info(
                "sealed",
                manifest=manifest.number,
                leaves=manifest.sealed_leaves - begin,
                sealed_leaves=manifest.sealed_leaves,
                files=len(manifest.added),
                bytes=sum(file.bytes for file in manifest.added),
                seconds=round(time.perf_counter() - began, 3),
            )

    def _merge(self, now_us: int) -> bool:
        began = time.perf_counter()
        manifest = self._sealer.merge(now_us)
        if manifest is not None:
            self._log.info(
                "merged",
                manifest=manifest.number,
                files=len(manifest.removed),
                into=len(manifest.added),
                rows=sum(file.rows for file in manifest.added),
                seconds=round(time.perf_counter() - began, 3),
            )
        return manifest is not None

    def _sweep(self, now_us: int) -> None:
        self._swept_at = time.monotonic()
        limits = Limits(
            keep_us=int(self._settings.archive.keep_days * _DAY_US),
            window_us=int(self._settings.ledger.window_hours * HOUR_NS) // 1000,
        )
        log = Path(self._settings.privacy_log.path)
        try:
            gone = sweep_log(self._archive, log, self._keys, limits, now_us)
            gone += self._leftovers.sweep(now_us)
        except (PrivacyLogError, OSError) as error:
            # What cannot be deleted is no reason to leave the rest unsealed.
            self._log.error("cannot_sweep", reason=str(error))
        else:
            if gone:
                self._log.info("swept", files=len(gone))

    async def _obey(self, scope: trio.CancelScope) -> None:
        while (order := await self._channel.order()) is not None and not isinstance(order, Stop):
            await self._channel.send(self._report(order.__struct_config__.tag))
        scope.cancel()

    def _report(self, about: object) -> Report:
        return Report(about=str(about), state=f"{self._sealer.sealed_leaves} entries sealed")
