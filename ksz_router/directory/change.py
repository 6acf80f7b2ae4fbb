"""A change of the directory, and what may come of it. Pure nouns; ``applying`` has the rules.

Inscribe and adjust follow form I605 of the KSZ, the ways of removing form S607; what the register
says about a number follows articles 7 and 8 of the contract. Who may change which lines was settled
by the control before: the role of a change is one that its sender acts as.
"""

from enum import IntEnum, unique

import msgspec

from ksz_router.days import is_day
from ksz_router.identifiers import is_insz
from ksz_router.model import ANY_TYPE, OPEN, PROVISIONAL, Day, Line

EXCHANGE_BYTES = 16

ANY = -1
"""In the line of a change that removes: any capacity (``REMOVE_PERIOD``), any phase."""

_CAPACITY_MAX = 900


@unique
class Operation(IntEnum):
    """What is to be done. The numbers stand in the journal: never reuse, never renumber."""

    INSCRIBE = 1
    """Add the line, under the number in use. Days of the same role that were inscribed
    provisionally (902) become definitive: they are taken out of the provisional lines."""
    ADJUST = 2
    """Give an existing line another begin, end or phase; ``line`` is what it becomes."""
    REMOVE_LINE = 3
    """Remove the line of this role and capacity that begins on ``line.begin``."""
    REMOVE_PERIOD = 4
    """Take the days from ``line.begin`` to ``line.end`` out of the lines of this role and
    capacity (``ANY``: every capacity); a line may split."""
    REMOVE_CAPACITY = 5
    """Remove all lines of this role and capacity, of one phase or of ``ANY``."""
    REMOVE_ALL = 6
    """Remove all lines of this role."""

    NEW_NUMBER = 11
    """The number now exists, and is active."""
    REPLACE = 12
    """The number is replaced by ``other``. No line moves; each number finds the lines of both."""
    CANCEL = 13
    """The number was given out by mistake."""
    DECEASE = 14
    """The person died on ``day``."""
    REACTIVATE = 15
    """The number is active again: after a death or a cancellation that was none, or on its own
    again after a replacement that was none."""

    LOADED = 21
    """No change that can be asked for: from here on the content is that of a bulk load."""
    RESTORED = 22
    """No change that can be asked for: from here on the content is that of a restore."""

    __hash__ = int.__hash__


LINE_OPERATIONS = frozenset(Operation(number) for number in range(1, 7))
REGISTER_OPERATIONS = frozenset(Operation(number) for number in range(11, 16))


@unique
class Reason(IntEnum):
    """Which rule a refused change breaks. The numbers stand in the journal: never renumber."""

    NUMBER_MALFORMED = 1
    LINE_MALFORMED = 2
    CHANGE_MALFORMED = 3
    NUMBER_UNKNOWN = 11
    NUMBER_KNOWN = 12
    NUMBER_CANCELLED = 13
    NUMBER_REPLACED = 14
    NUMBER_ACTIVE = 15
    OTHER_UNKNOWN = 16
    OTHER_CANCELLED = 17
    CIRCLE = 18
    TOO_MANY_NUMBERS = 19
    OVERLAPS = 21
    DEFINITIVE_ALREADY = 22
    LINE_UNKNOWN = 23
    TOO_MANY_LINES = 24
    TICKET_TOO_OLD = 54
    """No rule on persons: what became of the change is no longer kept. It is in no journal."""

    __hash__ = int.__hash__


# fmt: off
WHY: dict[Reason, str] = {
    Reason.NUMBER_MALFORMED: "the INSZ is not well formed",
    Reason.LINE_MALFORMED: "a field of the line is missing or out of range",
    Reason.CHANGE_MALFORMED: "the change does not hold what its operation needs",
    Reason.NUMBER_UNKNOWN: "the INSZ does not exist",
    Reason.NUMBER_KNOWN: "the INSZ exists already",
    Reason.NUMBER_CANCELLED: "the INSZ was cancelled",
    Reason.NUMBER_REPLACED: "the INSZ was replaced by another; name the one in use",
    Reason.NUMBER_ACTIVE: "the INSZ is active",
    Reason.OTHER_UNKNOWN: "the INSZ that is to replace it does not exist",
    Reason.OTHER_CANCELLED: "the INSZ that is to replace it was cancelled",
    Reason.CIRCLE: "the replacements would go round in a circle",
    Reason.TOO_MANY_NUMBERS: "the person would have too many numbers",
    Reason.OVERLAPS: "the period shares a day with a line of the same role and capacity",
    Reason.DEFINITIVE_ALREADY: "the role knows the person definitively on a day of the period",
    Reason.LINE_UNKNOWN: "no line of this role is meant by the change",
    Reason.TOO_MANY_LINES: "the number would have too many lines",
    Reason.TICKET_TOO_OLD: "what became of it is no longer kept; look, and use a new ticket",
}
# fmt: on

assert set(WHY) == set(Reason), "every reason has its words"


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What somebody asks to be changed, about one number."""

    exchange: bytes
    """Sixteen bytes that no other change has: a change is applied once for each."""
    number: str
    operation: Operation
    line: Line | None = None
    """Of a line operation: role, capacity, phase, begin and end, as the operation says. Its
    ``changed`` does not count."""
    line_begin: Day = 0
    """``ADJUST``: the begin that the line has now; 0: the same as that of ``line``.
    ``REMOVE_PERIOD``: the begin of the one line that is meant; 0: all of the capacity."""
    other: str = ""
    """``REPLACE``: the number that replaces."""
    day: Day = 0
    """``DECEASE``: the day of death."""

    def __repr__(self) -> str:
        return f"Change({self.operation.name})"


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The change stands, durably."""

    version: int
    """Of the directory, which this change made."""
    lines: tuple[Line, ...]
    """Of the person, after the change: those of the role; of a change by the register all."""
    current: str
    """The number in use."""
    repeated: bool = False
    """It was applied before under this exchange id; the lines are those of today."""

    def __repr__(self) -> str:
        return f"Applied(version={self.version}, lines={len(self.lines)})"


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The change breaks a rule; nothing was changed."""

    reason: Reason
    repeated: bool = False
    """It was refused before under this exchange id, and is not judged again."""

    @property
    def why(self) -> str:
        """The rule in words."""
        return WHY[self.reason]


def malformed(change: Change) -> Reason | None:
    """Return what is wrong with a change by itself, whatever the directory holds."""
    if not is_insz(change.number):
        return Reason.NUMBER_MALFORMED
    if len(change.exchange) != EXCHANGE_BYTES:
        return Reason.CHANGE_MALFORMED
    operation, line = change.operation, change.line
    if operation in LINE_OPERATIONS:
        if line is None or not is_line(line, operation):
            return Reason.LINE_MALFORMED
        return Reason.CHANGE_MALFORMED if change.line_begin < 0 else None
    if operation is Operation.REPLACE:
        return None if is_insz(change.other) else Reason.NUMBER_MALFORMED
    if operation is Operation.DECEASE:
        return None if is_day(change.day) else Reason.CHANGE_MALFORMED
    return None if operation in REGISTER_OPERATIONS else Reason.CHANGE_MALFORMED


def is_line(line: Line, operation: Operation = Operation.INSCRIBE) -> bool:
    """Say whether each field that the operation needs is in range (form I605)."""
    if not (0 <= line.sector <= 999 and ANY_TYPE <= line.type <= 999):
        return False
    if operation is Operation.REMOVE_ALL:
        return True
    if not (0 <= line.capacity <= _CAPACITY_MAX or line.capacity == PROVISIONAL):
        return operation is Operation.REMOVE_PERIOD and line.capacity == ANY and _is_period(line)
    if operation is Operation.REMOVE_CAPACITY:
        return ANY <= line.phase <= 999
    if operation is Operation.REMOVE_LINE:
        return is_day(line.begin)
    return _is_period(line) and (0 <= line.phase <= 999 or operation is Operation.REMOVE_PERIOD)


def _is_period(line: Line) -> bool:
    return is_day(line.begin) and (line.end == OPEN or is_day(line.end)) and line.begin <= line.end
