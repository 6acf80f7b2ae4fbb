"""A worker's hold on the privacy log: its writer, its recorder, and the keys of the quarter.

And on the ledger of submissions, since the one mends the other after a crash.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from ksz_router.config import Config
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.ledger_from_log import HOUR_NS, open_ledger
from ksz_router.daemon.opened import Exchange, Release
from ksz_router.daemon.recorder import Recorder
from ksz_router.daemon.submissions import Submissions
from ksz_router.ledger import Ledger
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.beside import disk_beside
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.entry import Entry
from ksz_router.privacylog.keys import (
    KeyRing,
    KeysError,
    Tokens,
    quarter_after,
    quarter_before,
    quarter_begin_ns,
    quarter_of,
)
from ksz_router.privacylog.taking import ClockBehindLog, LogNotWritable, SlotTaken
from ksz_router.privacylog.writer import Writer

_UNHURRIED_SECONDS, _HURRIED_SECONDS = 0.05, 0.002
_HURRY_FROM_SHARE = 0.4
"""Filling the next file with zeros makes commits wait, so it is spread over the first part of the
life of the current one; once that share of it is used, the rest is filled quickly."""


class Journal:
    """A worker's slot of the log. Nothing can be recorded until :meth:`open` succeeded.

    Args:
        slot: Such as ``w0``.
        clock_ns: Monotonic.
        wall_ns: Unix time.
    """

    def __init__(
        self, config: Config, index: int, clock_ns: Callable[[], int], wall_ns: Callable[[], int]
    ) -> None:
        self._config = config
        self._index = index
        self._window_ns = int(config.ledger.window_hours * HOUR_NS)
        self._wall_ns = wall_ns
        self._last_us = 0
        self._quarter = ""
        self._quarter_end_ns = 0
        self._writer: Writer | None = None
        self._disk = disk_beside(clock_ns)
        self.committed: Callable[[], None] = lambda: None
        """Called after each group."""
        self.keys_error = ""
        """Which key file is missing, where that is what stands in the way."""
        self.is_behind_log = False
        """The last entry is hours later than the clock, and that stands in the way."""
        # Its tokens come with the keys: nothing makes an entry that cannot be recorded.
        self.entries = EntryMaker(cast("Tokens", None), self._now_us)
        self._before: Tokens | None = None
        self.ledger = open_ledger(config)
        self.tickets = 0
        """How many the ledger held when it was last looked at."""
        self.submissions = Submissions(self.ledger, index, self.entries, self._tokens_before)
        self.recorder: Recorder[Exchange, Release] = Recorder(
            self._begin, clock_ns, self._is_durable
        )

    @property
    def is_open(self) -> bool:
        """The log was opened."""
        return self._writer is not None

    @property
    def writer(self) -> Writer:
        """The writer of an open log."""
        assert self._writer is not None, "the log is not open"
        return self._writer

    def open(self) -> None:
        """Open the slot; what an earlier run left open there is settled on return. Blocks.

        Raises:
            PrivacyLogError: the log or its keys cannot be used; the message says what to do.
        """
        writer = open_writer(self._config, self._index, self._wall_ns(), self.ledger, self._disk)
        self._last_us = writer.latest_us
        try:
            self._go_over_to(quarter_of(self._now_ns()), writer.keys)
        except PrivacyLogError:
            writer.close()
            raise
        self._writer = writer

    def try_open(self) -> str:
        """Open as :meth:`open` does, where that may become possible by itself.

        Returns:
            Why it could not be done: room, descriptors or a key file are missing, or the clock is
            behind. Empty where it could.

        Raises:
            SlotTaken: another process writes the slot; one of the two must end.
            PrivacyLogError: the log is damaged.
        """
        self.keys_error, self.is_behind_log = "", False
        try:
            self.open()
        except SlotTaken:
            raise
        except KeysError as error:
            self.keys_error = str(error)
            return self.keys_error
        except LogNotWritable as error:
            self.is_behind_log = isinstance(error, ClockBehindLog)
            return str(error)
        return ""

    def turn_quarter(self) -> bool:
        """Go over to the keys of a new quarter, if one began; say whether one did.

        Tokens and frames of one file belong to one quarter, so this runs between two turns, when
        nothing that was made under the old keys is waiting for the log. A quarter never comes
        back. Where keys are missing (``keys_error``), what is open ends in the old quarter.
        """
        assert self.recorder.is_empty
        assert not self.recorder.is_standing
        quarter = quarter_of(self._now_ns())
        if quarter == self._quarter:
            self.keys_error = ""
            return False
        try:
            self._go_over_to(quarter, self.writer.keys)
        except KeysError as error:
            self.keys_error = str(error)
            return False
        self.keys_error = ""
        return True

    def _go_over_to(self, quarter: str, keys: KeyRing) -> None:
        tokens = Tokens(keys.quarter(quarter))
        self._before = self.entries.tokens if self._quarter else None
        self.entries.tokens = tokens
        self._quarter = quarter
        self._quarter_end_ns = quarter_begin_ns(quarter_after(quarter))

    def _tokens_before(self) -> Tokens | None:
        """Of the quarter before, as long as the ledger has tickets of it; None if never or lost."""
        if self._now_ns() - quarter_begin_ns(self._quarter) > self._window_ns:
            return None
        if self._before is None:
            try:
                self._before = Tokens(self.writer.keys.quarter(quarter_before(self._quarter)))
            except KeysError:
                return None
        return self._before

    def count_tickets(self) -> None:
        """Look how many tickets the ledger holds; no other thread may ask it that."""
        self.tickets = self.ledger.rows

    def prefill(self) -> bool:
        """Fill the next file ahead of its use, unhurried; say whether one is ready now.

        For a thread; blocks.
        """
        return self.writer.prepare_next(self._pause)

    def _pause(self) -> None:
        hurry = self.writer.used_share > _HURRY_FROM_SHARE
        time.sleep(_HURRIED_SECONDS if hurry else _UNHURRIED_SECONDS)

    def free_share(self) -> float:
        """Return the share of the log's disk that is free, 0 to 1; NaN where none says."""
        try:
            return self._writer.free_share() if self._writer is not None else math.nan
        except OSError:
            return math.nan

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()
        self._disk.close()
        self.ledger.close()

    def _begin(self, records: Sequence[bytes]) -> None:
        self.writer.begin(records, min(self._now_ns(), self._quarter_end_ns - 1))

    def _is_durable(self, wait_s: float) -> bool:
        is_durable = self.writer.is_durable(wait_s)
        if is_durable:
            self.committed()
        return is_durable

    def _now_ns(self) -> int:
        """Unix nanoseconds, not before the last entry."""
        return max(self._last_us * 1000, self._wall_ns())

    def _now_us(self) -> int:
        """Unix microseconds that never go back, whatever the clock of the host does."""
        now_us, last_us = self._wall_ns() // 1000, self._last_us
        self._last_us = now_us = now_us if now_us > last_us else last_us + 1
        return now_us


def open_writer(
    config: Config, index: int, now_ns: int, ledger: Ledger, disk: Disk = DISK
) -> Writer:
    """Open the slot of a worker; the ledger learns what an earlier run left open, then the log.

    Raises:
        PrivacyLogError: the log or its keys cannot be used; the message says what to do.
    """

    def found(requests: Sequence[Entry]) -> None:
        ledger.resolve(index, {entry.exchange or b"": entry.destinations for entry in requests})

    return Writer.open(
        Path(config.privacy_log.path),
        slot=f"w{index}",
        node=config.node.name,
        keys_folder=Path(config.privacy_log.keys),
        now_ns=now_ns,
        file_bytes=config.privacy_log.file_bytes,
        found=found,
        disk=disk,
    )
