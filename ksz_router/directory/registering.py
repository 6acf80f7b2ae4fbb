"""What the register says about a number, applied to the records of the person. Pure."""

from collections.abc import Mapping

from msgspec.structs import replace

from ksz_router.directory.change import Change, Operation, Reason, Refused
from ksz_router.directory.packing import Record
from ksz_router.limits import person_numbers_max
from ksz_router.model import NumberStatus

Records = Mapping[str, Record]


def registered(records: Records, change: Change) -> dict[str, Record] | Refused:
    """Return the records that the change makes new or different, or the rule that it breaks.

    As :func:`applying.applied`, for the operations of the register.
    """
    number, record = change.number, records.get(change.number)
    if change.operation is Operation.NEW_NUMBER:
        if record is not None:
            return Refused(Reason.NUMBER_KNOWN)
        return {number: Record(status=NumberStatus.ACTIVE)}
    if record is None:
        return Refused(Reason.NUMBER_UNKNOWN)
    if change.operation is Operation.REPLACE:
        return _replaced(records, number, change.other)
    if change.operation is Operation.REACTIVATE:
        return _reactivated(records, number)
    if change.operation is Operation.CANCEL:
        if record.status is NumberStatus.REPLACED:
            return Refused(Reason.NUMBER_REPLACED)
        if record.status is NumberStatus.CANCELLED:
            return Refused(Reason.NUMBER_CANCELLED)
        return {number: replace(record, status=NumberStatus.CANCELLED, deceased=0)}
    assert change.operation is Operation.DECEASE, "a malformed change"
    current = record.others[0] if record.status is NumberStatus.REPLACED else number
    if records[current].status is NumberStatus.CANCELLED:
        return Refused(Reason.NUMBER_CANCELLED)
    dead = replace(records[current], status=NumberStatus.DECEASED, deceased=change.day)
    return {current: dead}


def _replaced(records: Records, number: str, other: str) -> dict[str, Record] | Refused:
    """Make one family of two. A number that was replaced itself hands on to the one in use."""
    former, target = records[number], records.get(other)
    if former.status is NumberStatus.REPLACED:
        reason = Reason.CIRCLE if other == number else Reason.NUMBER_REPLACED
        return Refused(reason)
    if other == number or other in former.others:
        return Refused(Reason.CIRCLE)
    if target is None:
        return Refused(Reason.OTHER_UNKNOWN)
    current = target.others[0] if target.status is NumberStatus.REPLACED else other
    if records[current].status is NumberStatus.CANCELLED:
        return Refused(Reason.OTHER_CANCELLED)
    family = [current, other, *target.others, number, *former.others]
    family = list(dict.fromkeys(family))
    if len(family) > person_numbers_max:
        return Refused(Reason.TOO_MANY_NUMBERS)
    changed = {member: _named(records[member], member, family) for member in family}
    changed[number] = replace(changed[number], status=NumberStatus.REPLACED, deceased=0)
    if former.status is NumberStatus.DECEASED and not changed[current].deceased:
        # The death is the person's: without this it would be forgotten with the number.
        changed[current] = replace(
            changed[current], status=NumberStatus.DECEASED, deceased=former.deceased
        )
    return changed


def _reactivated(records: Records, number: str) -> dict[str, Record] | Refused:
    record = records[number]
    if record.status is NumberStatus.ACTIVE:
        return Refused(Reason.NUMBER_ACTIVE)
    if record.status is not NumberStatus.REPLACED:
        return {number: replace(record, status=NumberStatus.ACTIVE, deceased=0)}
    family = [record.others[0], *records[record.others[0]].others]
    family.remove(number)
    changed = {member: _named(records[member], member, family) for member in family}
    changed[number] = replace(record, status=NumberStatus.ACTIVE, others=())
    return changed


def _named(record: Record, member: str, family: list[str]) -> Record:
    """Let one number name all the others; the one in use stands first."""
    return replace(record, others=tuple(other for other in family if other != member))
