"""A worker's record keeping on a host whose clocks the test sets, a second at a time."""

from pathlib import Path
from typing import cast

import msgspec

from ksz_router import config
from ksz_router.codes import Code
from ksz_router.config import Archive, PrivacyLog, Windows
from ksz_router.daemon import ledger_from_log, oplog
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.keeping import RecordKeeping
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.session import Session
from ksz_router.privacylog.entry import Entry, parse
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing, make, quarter_begin_ns

SECOND = 1_000_000_000
HOUR, YEARS = 3_600, 10 * 365 * 86_400
BEGIN_NS = quarter_begin_ns("2026Q4") + 40 * 86_400 * SECOND


class Clocks:
    """A host: time goes on for both of its clocks, and somebody sets one of them."""

    def __init__(self) -> None:
        self.monotonic = 5 * SECOND
        self.wall = BEGIN_NS

    def monotonic_ns(self) -> int:
        return self.monotonic

    def wall_ns(self) -> int:
        return self.wall

    def go_on(self, seconds: float) -> None:
        self.monotonic += int(seconds * SECOND)
        self.wall += int(seconds * SECOND)

    def jump(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)


class Night:
    """A worker's record keeping, on such a host; a quarter's keys, and a second at a time."""

    def __init__(self, folder: Path, contexts: Contexts) -> None:
        self.folder = folder
        self.clocks = Clocks()
        self.contexts = contexts
        self.admission = Admission(Windows())
        self.metrics = Metrics()
        make(folder / "keys", "2026Q4")
        (folder / "log").mkdir()
        self.start()

    def start(self) -> None:
        log = PrivacyLog(str(self.folder / "log"), str(self.folder / "keys"), 1 << 20)
        ledger = config.Ledger(str(self.folder / "ledger"))
        archive = Archive(str(self.folder / "archive"))
        settings = config.Config(privacy_log=log, ledger=ledger, archive=archive)
        ledger_from_log.ready(settings, self.clocks.wall_ns())
        self.keeping = RecordKeeping(
            settings,
            0,
            contexts=self.contexts,
            admission=self.admission,
            metrics=self.metrics,
            log=oplog.set_up("test"),
            wall_ns=self.clocks.wall_ns,
            monotonic_ns=self.clocks.monotonic_ns,
        )

    def stop(self) -> None:
        self.keeping.journal.close()

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clocks.go_on(1)
            await self.keeping.look()

    def record(self) -> int:
        """Make an entry durable; return its time in microseconds."""
        journal = self.keeping.journal
        entry = journal.entries.summary("somebody", {})
        journal.recorder.submit([entry])
        journal.recorder.commit()
        return parse(entry).at_us

    @property
    def takes_requests(self) -> bool:
        somebody = cast("Session", _Somebody())
        refused = self.admission.admit(somebody, 0)
        assert refused in (None, (Code.LOG_NOT_WRITABLE, 0))
        return refused is None

    def times(self) -> list[int]:
        """The times of all entries, in the order of the log."""
        found: list[Entry] = []

        def visit(frame: Frame) -> None:
            found.extend(map(parse, frame.records))

        log = HotLog(self.folder / "log", KeyRing(self.folder / "keys"))
        for slot in log.slots:
            log.read(slot, 0, 2**63, visit)
        assert not log.damaged
        return [entry.at_us for entry in found]

    def query(self, from_us: int, to_us: int) -> list[int]:
        """What a reader finds who looks only into files that may hold that time."""
        found: list[int] = []

        def visit(frame: Frame) -> None:
            found.extend(parse(record).at_us for record in frame.records)

        log = HotLog(self.folder / "log", KeyRing(self.folder / "keys"))
        log.read(log.slots[0], from_us, to_us, visit)
        return [at_us for at_us in found if from_us <= at_us < to_us]


class _Somebody(msgspec.Struct):
    uri: str = "urn:somebody"
    inflight: dict[int, int] = {}
