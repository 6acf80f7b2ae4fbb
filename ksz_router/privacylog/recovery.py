"""Read write-ahead files to their end, and say how they end and what they leave open.

Only one frame is under way in a file at a time. So damage with nothing valid behind it is a tail
torn by a crash, never acknowledged to anyone; damage with a valid frame at or behind it is
corruption of what was durable, and whoever meets it stops and says so.
"""

from collections.abc import Callable
from enum import Enum, unique
from pathlib import Path

import msgspec

from ksz_router.codes import Code
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.entry import OUTCOME_WITHIN_US, Entry, Kind, parse, parse_head
from ksz_router.privacylog.frame import (
    SETTLED,
    Frame,
    FrameCipher,
    Place,
    Read,
    begin_of,
    first_nonzero,
    frames,
    is_frame,
)
from ksz_router.privacylog.header import (
    PAGE,
    FileHeader,
    FrameDamaged,
    Link,
    parse_file_header,
)
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.slots import file_numbers, file_of, opened

Visit = Callable[[Frame], None]


class LogCorrupt(PrivacyLogError):
    """What was durable is damaged or missing. The message names the file and the place."""


@unique
class End(Enum):
    """How a file ends."""

    CLOSED = "closed by its writer"
    OPEN = "not closed: still written, or its writer was killed between two frames"
    TORN = "torn tail: the frame under way at a crash"
    CORRUPT = "corrupt"


class FileScan(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds, up to its good end."""

    header: FileHeader
    end: End
    frames: int
    """Good frames; the number of the last one."""
    next_record: int
    """Number in the slot of the record that would follow."""
    crc: int
    """Chain value at the good end."""
    offset: int
    """Where the good part ends; for a torn tail or corruption, the place of the damage."""
    what: str = ""

    @property
    def link(self) -> Link:
        """What the next file must name."""
        return Link(self.header.number, self.frames, self.crc)


def scan(
    file: Path,
    keys: KeyRing,
    visit: Visit | None = None,
    begin: Place | None = None,
    *,
    look_behind_bytes: int | None = None,
) -> FileScan:
    """Read a file to its end and hand each good frame to ``visit``, all or from a place on.

    With ``look_behind_bytes`` only so much is looked at behind the end. Frames stand one behind the
    other: from the size of the largest on, one that was lost shows by the next.

    Raises:
        LogCorrupt: the header page is damaged (it was durable before the file had its name).
        KeysError: the keys of its quarter are missing, or are others.
        OSError: the file cannot be read.
    """
    with opened(file) as read:
        page = read(0, PAGE)
        try:
            header = parse_file_header(page)
        except FrameDamaged as error:
            raise LogCorrupt(f"{file}: {error}") from error
        cipher = FrameCipher(keys.named(header.key_id, header.commitment).frames, header.salt)
        at = begin or begin_of(header)
        behind = header.file_bytes if look_behind_bytes is None else look_behind_bytes
        again = False
        while True:
            seen, damage = at, None
            try:
                for frame in frames(read, header, cipher, at):
                    if visit is not None:
                        visit(frame)
                    at = frame.end
                if (found := first_nonzero(read, at.offset, at.offset + behind)) is not None:
                    damage = FrameDamaged(found, "bytes behind the end are not zero")
            except FrameDamaged as error:
                damage = error
            end, place, what = _judge_end(read, header, cipher, at, damage)
            # A live file grows while it is read: what looked torn may be whole by now.
            if end in (End.CLOSED, End.OPEN) or (again and at == seen):
                break
            again = True
    return FileScan(
        header=header,
        end=end,
        frames=at.frame,
        next_record=at.next_record,
        crc=at.crc,
        offset=place,
        what=what,
    )


def _judge_end(
    read: Read,
    header: FileHeader,
    cipher: FrameCipher,
    at: Place,
    damage: FrameDamaged | None,
) -> tuple[End, int, str]:
    if damage is None:
        return End.CLOSED if at.is_last else End.OPEN, at.offset, ""
    place, what = damage.offset, damage.what
    if at.is_last:
        return End.CORRUPT, place, what
    behind = at.offset
    while behind < header.file_bytes:
        if is_frame(read, behind, cipher):
            return End.CORRUPT, place, f"{what}, and a whole frame stands at byte {behind}"
        # On to the next page that holds anything.
        found = first_nonzero(read, behind + PAGE, header.file_bytes)
        if found is None:
            break
        behind = found // PAGE * PAGE
    return End.TORN, place, what


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What a new run of a slot starts from."""

    previous: Link | None
    next_record: int
    open: tuple[Entry, ...]
    """Requests that were passed and have no outcome, oldest first."""
    latest_us: int = 0
    """No entry of the slot is later than this."""
    oldest: int = 0
    """Number of the oldest file that had to be read; 0 where there is none."""


def open_exchanges(slot_folder: Path, keys: KeyRing) -> Recovered:
    """Find where the slot ended, and the exchanges that its last run left open.

    Files are read from the newest back, until one of these holds, which bounds the work:

    - a file holds a ``SETTLED`` frame: earlier runs are dealt with;
    - a file's first request is older than the newest request of the slot by more than
      ``OUTCOME_WITHIN_US``: what is older had its outcome while the writer still ran.

    Raises:
        LogCorrupt: a file that was read is damaged before its end, missing, or does not end as
            the next one says.
        KeysError: the keys of a file's quarter are missing.
        OSError: a file cannot be read.
    """
    numbers = file_numbers(slot_folder)
    if not numbers:
        return Recovered(previous=None, next_record=0, open=())
    newest = number = numbers[-1]
    found = _OpenRequests()
    tail: FileScan | None = None
    named: Link | None = None
    while True:
        file = file_of(slot_folder, number)
        if not file.exists():
            raise LogCorrupt(f"{file}: missing; file {number + 1} of the slot follows it")
        in_file = _OpenRequests()
        result = scan(file, keys, in_file.visit)
        _check_sound(file, result, named)
        tail = tail or result
        found.put_before(in_file)
        named = result.header.previous
        if named is None or in_file.settled or found.span_us > OUTCOME_WITHIN_US:
            break
        number -= 1
    assert tail.header.number == newest
    requests = tuple(parse(record) for record in found.requests.values())
    return Recovered(
        previous=tail.link,
        next_record=tail.next_record,
        open=requests,
        latest_us=max(found.latest_us, tail.header.created_us),
        oldest=number,
    )


def outcome_unknown(request: Entry, at_us: int) -> Entry:
    """Return the outcome of an exchange that a crash left open.

    It says what is known without a key: tokens of the request's quarter may not be this one's.
    """
    code = Code.OUTCOME_UNKNOWN
    return Entry(
        kind=Kind.OUTCOME,
        at_us=at_us,
        exchange=request.exchange,
        code=code,
        stage=code.stage,
        service=request.service,
        service_version=request.service_version,
        requester=request.requester,
        acting=request.acting,
        destinations=request.destinations,
        generation=request.generation,
    )


def _check_sound(file: Path, result: FileScan, named: Link | None) -> None:
    number = int(file.stem)
    if result.end is End.CORRUPT:
        raise LogCorrupt(
            f"{file}: byte {result.offset}, behind frame {result.frames}: {result.what}; "
            "see `ksz-router log verify`, and docs/privacylog-format.md for what to do"
        )
    previous = result.header.previous
    follows = previous is None if number == 1 else previous and previous.number == number - 1
    if result.header.number != number or not follows:
        raise LogCorrupt(f"{file}: its header says it is another file")
    if named is not None and result.link != named:
        raise LogCorrupt(
            f"{file}: ends with frame {result.frames}; the next file names frame {named.frame}"
        )


class _OpenRequests:
    """Requests without outcome in a stretch of the log, and outcomes without request."""

    def __init__(self) -> None:
        self.requests: dict[bytes, bytes] = {}
        self.outcomes: set[bytes] = set()
        self.settled = False
        self.oldest_us: int | None = None
        self.newest_us = 0
        self.latest_us = 0

    @property
    def span_us(self) -> int:
        """From the oldest request seen to the newest."""
        return 0 if self.oldest_us is None else self.newest_us - self.oldest_us

    def visit(self, frame: Frame) -> None:
        for record in frame.records:
            head = parse_head(record)
            self.latest_us = max(self.latest_us, head.at_us)
            if head.exchange is None:
                continue
            if head.kind == Kind.REQUEST:
                self.newest_us = head.at_us
                if self.oldest_us is None:
                    self.oldest_us = head.at_us
                if head.code == 0:
                    self.requests[head.exchange] = record
            elif head.kind == Kind.OUTCOME and not self.requests.pop(head.exchange, b""):
                self.outcomes.add(head.exchange)
        if frame.flags & SETTLED:
            self.requests.clear()
            self.outcomes.clear()
            self.settled = True

    def put_before(self, earlier: "_OpenRequests") -> None:
        """Extend the stretch by the one that comes just before it."""
        still = {k: v for k, v in earlier.requests.items() if k not in self.outcomes}
        self.requests = still | self.requests
        self.outcomes |= earlier.outcomes
        self.latest_us = max(self.latest_us, earlier.latest_us)
        if earlier.oldest_us is not None:
            if self.oldest_us is None:
                self.newest_us = earlier.newest_us
            self.oldest_us = earlier.oldest_us
