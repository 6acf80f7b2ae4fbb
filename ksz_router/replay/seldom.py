"""What few services ask for and no entry keeps: periods of data, subscriptions, networks. Pure.

An entry keeps what the directory of a secondary network decided as a code or a violation, not its
lines: here they are such as the primary directory's, but in what the entry says was broken.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ksz_router.codes import Code, Stage
from ksz_router.days import is_day, next_day, to_date, to_day
from ksz_router.decision import Standing
from ksz_router.model import OPEN, Availability, Day, Line
from ksz_router.privacylog.entry import Entry
from ksz_router.replay.recorded import Variant

Held = Mapping[str, tuple[Line, ...]] | None
"""Lines in the directories of secondary networks; of one that is down nothing."""

_OWN = "sectoral:log:"


def broken_sectoral(entry: Entry) -> Code | None:
    """Return what the entry says was broken in the directory of the requester's network."""
    if entry.code:
        return Code(entry.code) if entry.code in set(Code) else None
    names = [name[len(_OWN) :] for name in entry.violations if name.startswith(_OWN)]
    return Code[names[0]] if names and names[0] in Code.__members__ else None


def with_periods(variant: Variant, entry: Entry, rows: Sequence[Availability]) -> Iterator[Variant]:
    """Return a variant, then those that differ in what the entry leaves open.

    Args:
        variant: A request.
        entry: What became of it.
        rows: Who has the data of the service.
    """
    yield variant
    if entry.code and Code(entry.code).stage < Stage.SOURCE_INTEGRATION:
        return
    if any(row.changes_only for row in rows):
        yield variant.but("it said nothing new", unchanged=True)
    if not entry.code:
        return  # its period is in the entry
    ends = {(row.data_begin, row.data_end) for row in rows}
    for day in sorted({day for begin, end in ends for day in _around(begin, end)}):
        yield variant.but(f"the period of {day} was asked", begin=day, end=day)


def _around(begin: Day, end: Day) -> Iterator[Day]:
    if is_day(begin):
        yield begin
        yield to_day(to_date(begin).replace(day=1)) if begin % 100 > 1 else _before(begin)
    if end < OPEN and is_day(end):
        yield end
        yield next_day(end)


def _before(day: Day) -> Day:
    return to_day(to_date(day).fromordinal(to_date(day).toordinal() - 1))


def sectoral(entry: Entry, standing: Standing, lines: tuple[Line, ...]) -> Iterator[Held]:
    """Return what the directories of secondary networks may have held of the person.

    Args:
        entry: The record.
        standing: Names the networks.
        lines: What the primary directory is taken to have held.
    """
    networks = standing.networks
    if not networks:
        yield None
        return
    own = standing.own.files if standing.own is not None else frozenset()
    mine = tuple(line for line in lines if (line.sector, line.type) in own)
    yield dict.fromkeys(networks, lines)
    broken = broken_sectoral(entry)
    if broken is None and not entry.violations:
        return
    yield {}
    changed = (
        (),
        mine,
        tuple(line for line in lines if line not in mine),
        tuple(msgspec.structs.replace(line, phase=max(0, line.phase - 1)) for line in lines),
        tuple(msgspec.structs.replace(line, begin=0, end=0) for line in lines),
    )
    for held in changed:
        yield dict.fromkeys(networks, held)
        for network in networks:
            rest = dict.fromkeys(networks, lines)
            yield rest | {network: held}
            yield {name: held for name in networks if name != network}
