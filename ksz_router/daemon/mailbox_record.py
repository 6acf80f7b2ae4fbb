"""The slot of the privacy log for the lines of mailboxes: as a worker's, for whoever applies them.

One process at a time applies mailboxes, since one at a time writes the directory; so there is one
slot. Each line has a REQUEST before it is applied, and an OUTCOME before its verdict is told.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from ksz_router.config import Config
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.recorder import Recorder
from ksz_router.limits import MIB
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.keys import Tokens, quarter_after, quarter_begin_ns, quarter_of
from ksz_router.privacylog.writer import Writer

SLOT = "d0"

_FILE_BYTES = 8 * MIB
"""Filled when the one before is full, while the lines wait: a small file is no long wait."""


class MailboxRecord:
    """The slot; it is taken when something is to be recorded.

    Args:
        settings: Where the log is, and its keys.
        clock_ns: Monotonic.
        wall_ns: Unix time.
    """

    def __init__(
        self, settings: Config, clock_ns: Callable[[], int], wall_ns: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._last_us = 0
        self._quarter = ""
        self._writer: Writer | None = None
        # Its tokens come with the keys: nothing makes an entry that cannot be recorded.
        self.entries = EntryMaker(cast("Tokens", None), self.now_us)
        self.recorder: Recorder[int, int] = Recorder(self._commit, clock_ns)

    @property
    def folder(self) -> Path:
        """Of the slot."""
        return Path(self._settings.privacy_log.path) / SLOT

    def make_ready(self) -> None:
        """Open the slot where it is not, and go over to the keys of a new quarter. Blocks.

        Raises:
            PrivacyLogError: nothing can be recorded now; the message says why.
        """
        assert self.recorder.is_empty, "what was made under the old keys is recorded first"
        if self._writer is None:
            self._quarter = ""
            writer = Writer.open(
                Path(self._settings.privacy_log.path),
                slot=SLOT,
                node=self._settings.node.name,
                keys_folder=Path(self._settings.privacy_log.keys),
                now_ns=self._wall_ns(),
                file_bytes=_FILE_BYTES,
            )
            self._last_us = max(self._last_us, writer.latest_us)
            self._writer = writer
        quarter = quarter_of(self._now_ns())
        if quarter != self._quarter:
            self.entries.tokens = Tokens(self._writer.keys.quarter(quarter))
            self._quarter = quarter

    def give_up(self) -> None:
        """Leave the slot in the midst of something: who takes it next settles what is open."""
        self.recorder = Recorder(self._commit, self._clock_ns)
        with contextlib.suppress(PrivacyLogError):
            self.close()

    def close(self) -> None:
        """End the file, between two steps.

        Raises:
            LogNotWritable: the disk refused; the slot is left all the same.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def now_us(self) -> int:
        """Unix microseconds that never go back."""
        self._last_us = max(self._last_us + 1, self._wall_ns() // 1000)
        return self._last_us

    def _now_ns(self) -> int:
        return max(self._last_us * 1000, self._wall_ns())

    def _commit(self, records: Sequence[bytes]) -> None:
        assert self._writer is not None, "make_ready comes first"
        last_ns = quarter_begin_ns(quarter_after(self._quarter)) - 1
        self._writer.commit(records, min(self._now_ns(), last_ns))
