"""The submission ledger of a router: opened where it stands, else made anew from the log.

It lies in memory that the machine loses with its power, so it names the uptime it was made in.
"""

import os
import re
import shutil
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ksz_router.codes import Code
from ksz_router.config import Config
from ksz_router.ledger import Ledger, LedgerError, Recall
from ksz_router.privacylog.archive.chain import newest
from ksz_router.privacylog.entry import Entry, Kind, parse, parse_head
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.header import PAGE, parse_file_header
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import End, LogCorrupt, scan
from ksz_router.privacylog.slots import file_numbers, file_of, opened, slot_folders
from ksz_router.privacylog.taking import take_slot

HOUR_NS = 3_600_000_000_000

WORKER_SLOT = re.compile(r"w([0-9]+)")
"""Slots of the log that belong to workers, by their index."""

_BIN_16, _CONTENT_AT = b"\xc4\x10", 18
"""How ``content``, the last field of an entry, begins where there is one."""

_SAME_BOOT_SECONDS = 1.0
"""Two estimates of the same boot differ by less, unless the clock was set meanwhile; then the
ledger is made anew, which takes a while and harms nobody."""


def open_ledger(config: Config) -> Ledger:
    """Open the submission ledger that :func:`ready` left.

    Raises:
        LedgerError: it is missing.
    """
    return _open(Path(config.ledger.path), config)


def ready(config: Config, now_ns: int | None = None) -> int | None:
    """See to it that the ledger stands, before any worker runs.

    Args:
        config: Says where log and ledger are.
        now_ns: Unix time, where it is another than the clock's.

    Returns:
        How many tickets were taken from the log; None where the ledger stood already.

    Raises:
        LedgerError, OSError: it cannot be made; the message says what to do.
        SlotTaken: it is to be made, and a worker of an earlier run still goes by the one before.
        PrivacyLogError: the log cannot be read.
    """
    boot_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        ledger = open_ledger(config)
    except LedgerError:
        pass
    else:
        ledger.close()
        if abs(ledger.boot_s - boot_s) < _SAME_BOOT_SECONDS:
            return None
    folder = Path(config.ledger.path)
    building = folder.with_name(folder.name + ".new")
    log = Path(config.privacy_log.path)
    with _held(log) as slots:
        shutil.rmtree(building, ignore_errors=True)
        ledger = _open(building, config, boot_s)
        try:
            since_us = (now_ns or time.time_ns()) // 1000 - ledger.window_us
            keys = KeyRing(Path(config.privacy_log.keys))
            with Recall(ledger) as recall:
                all_of = _Attempts(recall, since_us)
                archive = Path(config.archive.path)
                for slot in slots:
                    _recall_slot(slot, keys, all_of, since_us, archive)
                # A ticket lives on with each attempt: of some the first ones are older than that.
                older_us = min(map(_made_us, all_of.began_before), default=since_us)
                older = _Attempts(recall, older_us, of=all_of.began_before, before_us=since_us)
                for slot in slots if all_of.began_before else ():
                    _recall_slot(slot, keys, older, older_us, archive)
            recalled = ledger.rows
        finally:
            ledger.close()
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    return recalled


@contextmanager
def _held(log: Path) -> Iterator[list[Path]]:
    """Hold the slots of the workers: what one claims meanwhile would be in no ledger."""
    slots = slot_folders(log) if log.is_dir() else []
    with ExitStack() as held:
        for slot in slots:
            if WORKER_SLOT.fullmatch(slot.name):
                held.callback(os.close, take_slot(log, slot))
        yield slots


def _open(folder: Path, config: Config, made_for_boot_s: float | None = None) -> Ledger:
    return Ledger(
        folder,
        rows_max=config.ledger.tickets_max,
        window_us=int(config.ledger.window_hours * HOUR_NS) // 1000,
        made_for_boot_s=made_for_boot_s,
    )


def _made_us(exchange: bytes) -> int:
    """When an exchange id was made, Unix microseconds: a UUIDv7 begins with it (RFC 9562 5.7)."""
    return int.from_bytes(exchange[:6], "big") * 1000


def _recall_slot(
    slot: Path, keys: KeyRing, attempts: "_Attempts", since_us: int, archive: Path
) -> None:
    """Hand what one writer recorded since then to the ledger, oldest first.

    Raises:
        LogCorrupt: what was submitted cannot be known.
        ChainBroken: files are gone, and what is sealed cannot be known either.
    """
    numbers = file_numbers(slot)
    begin = len(numbers)
    while begin and (begin == len(numbers) or _created_us(slot, numbers[begin]) > since_us):
        begin -= 1
    _check_present(slot, numbers[begin:], since_us, archive)
    for number in numbers[begin:]:
        file = file_of(slot, number)
        result = scan(file, keys, attempts.visit)
        if result.end is End.CORRUPT:
            raise LogCorrupt(
                f"{file}: byte {result.offset}, behind frame {result.frames}: {result.what}; "
                "what was submitted cannot be known without it, see docs/privacylog-format.md"
            )
    attempts.end()


def _check_present(slot: Path, numbers: Sequence[int], since_us: int, archive: Path) -> None:
    """See that no file is missing; those before the first one are not where they are sealed.

    Such a file was kept as long as anything in it was for the ledger.

    Raises:
        LogCorrupt: one is.
        ChainBroken: what is sealed cannot be known.
    """
    gone = next((n for n, after in pairwise(numbers) if after != n + 1), None)
    is_cut = bool(numbers) and numbers[0] > 1 and _created_us(slot, numbers[0]) > since_us
    if gone is None and is_cut:
        manifest = newest(archive)
        cursor = manifest.slots.get(slot.name) if manifest is not None else None
        if cursor is None or cursor.file < numbers[0]:
            gone = numbers[0] - 2
    if gone is not None:
        raise LogCorrupt(
            f"{file_of(slot, gone + 1)}: missing, and not sealed; what was submitted cannot be "
            "known without it, see docs/privacylog-format.md"
        )


def _created_us(slot: Path, number: int) -> int:
    with opened(file_of(slot, number)) as read:
        return parse_file_header(read(0, PAGE)).created_us


class _Attempt(NamedTuple):
    """One whose outcome is still to come in the log."""

    key: bytes
    number: int
    recipients: tuple[str, ...]
    is_one_by_one: bool = False
    """What became of it was recorded recipient by recipient."""


class _Attempts:
    """The submissions of one writer after the other, from its entries in their order.

    Args:
        recall: Is told of them.
        since_us: Older ones are left out.
        of: Where some only are wanted: first exchange ids of their tickets.
        before_us: And of these no later attempts, which were told before.
    """

    def __init__(
        self, recall: Recall, since_us: int, *, of: Container[bytes] = (), before_us: int = 0
    ) -> None:
        self.began_before: set[bytes] = set()
        """First exchange ids of tickets whose first attempt is older than all that was read."""
        self._recall = recall
        self._since_us = since_us
        self._of = of
        self._before_us = before_us
        self._open: dict[bytes, _Attempt] = {}

    def visit(self, frame: Frame) -> None:
        for record in frame.records:
            has_content = record[-_CONTENT_AT:].startswith(_BIN_16)
            if not has_content and not self._open:
                continue  # most of a log is consultations, and is not looked into
            head = parse_head(record)
            if head.at_us < self._since_us or head.exchange is None:
                continue
            if head.exchange in self._open:
                self._outcome(head.exchange, parse(record))
            elif has_content and head.kind == Kind.REQUEST and head.code == 0:
                self._request(parse(record))

    def _request(self, entry: Entry) -> None:
        if not entry.attempt:
            return
        assert entry.exchange is not None
        assert entry.ticket is not None
        first = entry.first or entry.exchange
        if self._before_us and (entry.at_us >= self._before_us or first not in self._of):
            return
        if _made_us(first) < self._since_us:
            self.began_before.add(first)
        self._open[entry.exchange] = _Attempt(entry.ticket, entry.attempt, entry.destinations)
        self._recall.request(
            key=entry.ticket,
            content=entry.content or bytes(16),
            exchange=entry.exchange,
            first=first,
            attempt=entry.attempt,
            at_us=entry.at_us,
        )

    def _outcome(self, exchange: bytes, entry: Entry) -> None:
        attempt = self._open[exchange]
        if entry.kind == Kind.RECIPIENT:
            # Who was spared for an outage was not sent it, and keeps what an earlier attempt says.
            if entry.code != Code.ANNOUNCED_OUTAGE:
                self._tell(attempt, entry.destinations, entry.code)
            self._open[exchange] = attempt._replace(is_one_by_one=True)
        elif entry.kind == Kind.OUTCOME:
            del self._open[exchange]
            if entry.code == Code.OUTCOME_UNKNOWN or not attempt.is_one_by_one:
                self._tell(attempt, attempt.recipients, entry.code, entry.digest)

    def end(self) -> None:
        """The log ends here: what is open has no outcome yet."""
        for attempt in self._open.values():
            self._tell(attempt, attempt.recipients, Code.OUTCOME_UNKNOWN)
        self._open.clear()

    def _tell(
        self, attempt: _Attempt, recipients: Sequence[str], code: int, digest: bytes | None = None
    ) -> None:
        codes = dict.fromkeys(recipients, int(code))
        self._recall.outcome(attempt.key, attempt.number, codes, digest)
