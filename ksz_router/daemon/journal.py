"""A worker's hold on the privacy log: its writer, its recorder, and the keys of the quarter.

And on the ledger of submissions, since the one mends the other after a crash.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ksz_router.config import Config
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.ledger_from_log import HOUR_NS, open_ledger
from ksz_router.daemon.opened import Continuation
from ksz_router.daemon.recorder import Recorder
from ksz_router.daemon.submissions import Submissions
from ksz_router.ledger import Ledger
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
from ksz_router.privacylog.recovery import open_exchanges
from ksz_router.privacylog.slots import slot_folders
from ksz_router.privacylog.writer import Writer

WORKER_SLOT = re.compile(r"w([0-9]+)")
"""Slots of the log that belong to workers, by their index."""

_UNHURRIED_SECONDS, _HURRIED_SECONDS = 0.05, 0.002
_HURRY_FROM_SHARE = 0.4
"""Filling the next file with zeros makes commits wait, so it is spread over the first part of the
life of the current one; once that share of it is used, the rest is filled quickly."""


class Journal:
    """Opens the slot of a worker; what an earlier run left open there is settled on return.

    Raises:
        PrivacyLogError: the log or its keys cannot be used; the message says what to do.
    """

    def __init__(
        self, config: Config, index: int, clock_ns: Callable[[], int], wall_ns: Callable[[], int]
    ) -> None:
        keys_folder = Path(config.privacy_log.keys)
        self._keys = KeyRing(keys_folder)
        self._window_ns = int(config.ledger.window_hours * HOUR_NS)
        self._wall_ns = wall_ns
        self._last_us = 0
        now_ns = wall_ns()
        self._quarter = quarter_of(now_ns)
        self._quarter_end_ns = quarter_begin_ns(quarter_after(self._quarter))
        self.ledger = open_ledger(config)
        try:
            self.writer = _open_writer(config, index, now_ns, self.ledger)
            self.entries = EntryMaker(Tokens(self._keys.quarter(self._quarter)), self._now_us)
        except BaseException:
            self.ledger.close()
            raise
        self._before: Tokens | None = None
        self.submissions = Submissions(self.ledger, index, self.entries, self._tokens_before)
        self.recorder: Recorder[Continuation] = Recorder(self._commit, clock_ns)

    def turn_quarter(self) -> bool:
        """Go over to the keys of a new quarter, if one began; say whether one did.

        Tokens and frames of one file belong to one quarter, so this runs between two turns, when
        nothing that was made under the old keys is waiting for the log.
        """
        assert self.recorder.is_empty
        quarter = quarter_of(self._wall_ns())
        if quarter == self._quarter:
            return False
        keys = self._keys.quarter(quarter)
        self._quarter = quarter
        self._quarter_end_ns = quarter_begin_ns(quarter_after(quarter))
        self._before = self.entries.tokens
        self.entries.tokens = Tokens(keys)
        return True

    def _tokens_before(self) -> Tokens | None:
        """Of the quarter before, as long as the ledger has tickets of it; None if never or lost."""
        if self._wall_ns() - quarter_begin_ns(self._quarter) > self._window_ns:
            return None
        if self._before is None:
            try:
                self._before = Tokens(self._keys.quarter(quarter_before(self._quarter)))
            except KeysError:
                return None
        return self._before

    def prefill(self) -> None:
        """Fill the next file ahead of its use, unhurried. For a thread; blocks."""
        self.writer.prepare_next(self._pause)

    def _pause(self) -> None:
        hurry = self.writer.used_share > _HURRY_FROM_SHARE
        time.sleep(_HURRIED_SECONDS if hurry else _UNHURRIED_SECONDS)

    def close(self) -> None:
        """End the file."""
        self.writer.close()
        self.ledger.close()

    def _commit(self, records: Sequence[bytes]) -> None:
        self.writer.commit(records, min(self._wall_ns(), self._quarter_end_ns - 1))

    def _now_us(self) -> int:
        """Unix microseconds that never go back, whatever the clock of the host does."""
        self._last_us = max(self._last_us + 1, self._wall_ns() // 1000)
        return self._last_us


def settle_orphans(config: Config, now_ns: int) -> list[str]:
    """Give an outcome to what a worker left open whose place exists no more; return the slots.

    A worker settles its own slot when it starts. After a start with fewer workers nobody would
    settle the others.

    Raises:
        PrivacyLogError: a slot cannot be read or written; the message says what to do.
        OSError: the log cannot be listed.
    """
    log, keys = Path(config.privacy_log.path), Path(config.privacy_log.keys)
    settled = []
    ledger = open_ledger(config)
    for folder in slot_folders(log) if log.is_dir() else ():
        found = WORKER_SLOT.fullmatch(folder.name)
        if found is None or int(found[1]) < config.node.workers:
            continue
        if ledger.has_open(int(found[1])) or open_exchanges(folder, KeyRing(keys)).open:
            _open_writer(config, int(found[1]), now_ns, ledger).close()
            settled.append(folder.name)
    ledger.close()
    return settled


def _open_writer(config: Config, index: int, now_ns: int, ledger: Ledger) -> Writer:
    """Open the slot of a worker; the ledger learns what an earlier run left open, then the log."""

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
    )
