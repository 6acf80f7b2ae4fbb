"""What waits for the directory's writer, and what is done with it in its thread."""

from collections.abc import Callable, Sequence
from enum import Enum, auto, unique
from typing import NamedTuple, TypeAlias

import trio

from ksz_router.directory.change import Applied, Change, Refused
from ksz_router.directory.hindrance import DirectoryFullError, NotTakenError
from ksz_router.directory.packing import DamagedError, DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.persons import Person


@unique
class Failure(Enum):
    """Nothing was done, for a reason that is not the requester's."""

    FULL = auto()
    """As much waits as may; it may be asked again."""
    TOO_LATE = auto()
    """Its time was over before the writer came to it."""
    NO_ROOM = auto()
    """The file of the directory or its disk is full."""
    DAMAGED = auto()
    """What the directory holds on this person cannot be read, or a page that the change needs."""


class Found(NamedTuple):
    """What a look-up found, and the version of the directory that it saw."""

    person: Person | None
    version: int


Verdict: TypeAlias = Applied | Refused | Failure


class ChangeJob(NamedTuple):
    """A change that waits, and who is told what came of it."""

    change: Change
    ends_at: float
    done: Callable[[Verdict], None]


class LookUpJob(NamedTuple):
    """A look-up that waits, and who is told what it found."""

    number: str
    ends_at: float
    done: Callable[[Found | Failure], None]


class WorkJob:
    """Work of the program itself that waits for the writer, and what came of it."""

    def __init__(self, work: Callable[[Writer], None]) -> None:
        self.work = work
        self.ended = trio.Event()
        self.trouble: DamagedError | NotTakenError | None = None


Job: TypeAlias = ChangeJob | LookUpJob | WorkJob


class Turn:
    """What is done with the writer in one go. Its thread runs it; nobody else has it then.

    Attributes:
        hindrance: Why no change was taken the last time; None: they were.
    """

    def __init__(self, writer: Writer, wall_us: Callable[[], int]) -> None:
        self._writer = writer
        self._wall_us = wall_us
        self.hindrance: NotTakenError | None = None

    def run(
        self, changes: Sequence[Change], numbers: Sequence[str], works: Sequence[WorkJob]
    ) -> tuple[Sequence[Verdict], Sequence[Found | Failure]]:
        """Make changes, then look up, then do the rest; what came of the first two, in order.

        Raises:
            DirectoryError: it is not known what of the changes stands.
        """
        try:
            verdicts = self._apply(changes)
        except DamagedError:  # of one person; the others must not suffer for it
            verdicts = [self._apply_alone(change) for change in changes]
        try:
            persons: Sequence[Person | Failure | None] = self._writer.look_up(numbers)
        except DirectoryError:  # the changes beside them are durable, and are answered
            persons = [self._look_up_alone(number) for number in numbers]
        version = self._writer.version
        found = [
            person if isinstance(person, Failure) else Found(person, version) for person in persons
        ]
        for job in works:
            try:
                job.work(self._writer)
            except (DamagedError, NotTakenError) as error:
                job.trouble = error
        return verdicts, found

    def _apply(self, changes: Sequence[Change]) -> Sequence[Verdict]:
        """Apply changes; where none is taken now, that is what comes of each.

        Raises:
            DamagedError: a record cannot be read.
            DirectoryError: it is not known what stands.
        """
        try:
            verdicts = self._writer.apply(changes, self._wall_us())
        except NotTakenError as error:
            self.hindrance = error
            is_full = isinstance(error, DirectoryFullError)
            return [Failure.NO_ROOM if is_full else Failure.DAMAGED] * len(changes)
        if changes:
            self.hindrance = None
        return verdicts

    def _apply_alone(self, change: Change) -> Verdict:
        try:
            return self._apply([change])[0]
        except DamagedError:
            return Failure.DAMAGED

    def _look_up_alone(self, number: str) -> Person | Failure | None:
        try:
            return self._writer.look_up([number])[0]
        except DirectoryError:
            return Failure.DAMAGED
