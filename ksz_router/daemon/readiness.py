"""Ready or not, and why not: the one answer that status, metrics, HTTP and systemd give.

Alive is another question: a router that has no room is alive, answers every request with a typed
refusal, and goes on by itself when there is room; to restart it would help nobody.
"""

from collections.abc import Callable

from ksz_router import limits
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.clock import HostClock
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.journal import Journal
from ksz_router.daemon.reasons import Reason
from ksz_router.privacylog.writer import Writer

FREE_SHARE_MIN = 0.10
"""Below this share of free disk nothing is taken any more: rather refuse than not record."""

_USED_SHARE_MAX = 0.5
"""How much of the current file is used while no next one can be made; the rest is for the
outcomes of what is open."""


_LOOP_STANDS_NS = 5_000_000_000


def room(writer: Writer) -> Reason | None:
    """Say why the disk has no room for new exchanges; None where it has."""
    try:
        free_share = writer.free_share()
    except OSError:  # a disk that cannot say how it is
        return Reason.LOG_DISK_SHORT
    if free_share < FREE_SHARE_MIN:
        return Reason.LOG_DISK_SHORT
    return Reason.LOG_FILE_SHORT if is_file_short(writer) else None


def is_file_short(writer: Writer) -> bool:
    """Say whether the rest of the file is kept for what is open, since no next one can be made."""
    return bool(writer.next_file_error) and writer.used_share > _USED_SHARE_MAX


class Readiness:
    """Whether a worker is ready.

    Args:
        wall_ns: The host's clock, by which TLS judges certificates.
        monotonic_ns: By which the loop must come round.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        clock: HostClock,
        contexts: Contexts,
        admission: Admission,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._contexts = contexts
        self._admission = admission
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._round_ns = monotonic_ns()
        self._told: tuple[Reason, ...] = ()
        self._not_recording: Reason | None = None
        self.unsequenced_share = 0.0
        """Of the log's disk, as it was last looked at."""

    @property
    def can_record(self) -> bool:
        """Whether requests may be taken, as it was at the last look."""
        return self._not_recording is None

    def _what_stops_recording(self) -> Reason | None:
        if self._clock.has_jumped or self._journal.is_behind_log:
            return Reason.CLOCK_JUMPED
        if self._journal.keys_error:
            return Reason.KEYS_MISSING
        if not self._journal.is_open:
            return Reason.LOG_NOT_OPEN
        if self.unsequenced_share > limits.unsequenced_share_max:
            return Reason.LOG_NOT_SEQUENCED
        return room(self._journal.writer)

    def reasons(self) -> tuple[Reason, ...]:
        """Every reason why this worker is not ready; none where it is. From any thread."""
        now_s = self._wall_ns() / 1e9
        standing = self._contexts.standing
        ends_s = standing.accepted.next_update_unix_s
        ends_s += standing.accepted.grace_s if ends_s else 0
        found = [self._not_recording] if self._not_recording is not None else []
        if now_s >= standing.not_after_unix_s:
            found.append(Reason.CERTIFICATE_ENDED)
        if ends_s and now_s >= ends_s:
            found.append(Reason.REVOCATIONS_ENDED)
        if self._monotonic_ns() - self._round_ns > _LOOP_STANDS_NS:
            found.append(Reason.LOOP_STANDS)
        if self._admission.is_draining:
            found.append(Reason.DRAINING)
        return tuple(found)

    def look(self) -> tuple[Reason, ...] | None:
        """Look at everything, in a turn of the loop; return the reasons if they changed."""
        self._round_ns = self._monotonic_ns()
        self._not_recording = self._what_stops_recording()
        now = self.reasons()
        if now == self._told:
            return None
        self._told = now
        return now
