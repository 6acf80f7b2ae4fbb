"""Keys, entries and promises of the small log that the fault trials break. Synthetic persons."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import msgspec

from ksz_router.codes import Code
from ksz_router.identifiers import Kbo
from ksz_router.privacylog.entry import Entry, Kind, canonical
from ksz_router.privacylog.keys import Tokens, load, make, quarter_begin_ns
from ksz_router.privacylog.tree.checkpoint import make_keys

ORIGIN: Final = "log.example/faults"
NODE: Final = "router-a"
QUARTERS: Final = ("2026Q4", "2027Q1")
BEGIN_NS: Final = quarter_begin_ns(QUARTERS[1]) - 40_000_000_000
"""Forty seconds before the quarter ends: a run goes over it."""
_SERVICES = ("pension.consult", "family.consult", "wages.submit")
_INSTITUTIONS = tuple(map(Kbo, ("0206731645", "0206737484", "0200881951", "0244640031")))
_PERSONS = 40


Later: TypeAlias = Callable[[int], list[bytes]]
"""Unix nanoseconds to the records that end an exchange then."""


class Keys(msgspec.Struct, frozen=True):
    """Folders with the keys of a log, drawn for this run: they lie on a disk that stays whole."""

    quarters: Path
    checkpoint: Path

    @classmethod
    def drawn(cls, folder: Path) -> "Keys":
        """Draw them."""
        for quarter in QUARTERS:
            make(folder / "quarters", quarter)
        make_keys(folder / "checkpoint", ORIGIN)
        return cls(folder / "quarters", folder / "checkpoint")


def person(number: int) -> str:
    """Return the well-formed number of a synthetic person: born in an unknown month of 1985."""
    body = 850_000_001 + number
    return f"{body:09d}{97 - body % 97:02d}"


class Promises:
    """What was promised to the world, and at how many changes to the disk.

    Attributes:
        given: Every record that was handed to a writer.
        acknowledged: Those of which it said that they are durable, and since when.
        shown: Size and root of each checkpoint that was shown, and since when.
    """

    def __init__(self) -> None:
        self.given: set[bytes] = set()
        self.acknowledged: dict[bytes, int] = {}
        self.shown: dict[int, tuple[bytes, int]] = {}
        self.doubled: list[int] = []
        """Sizes that were signed with two roots."""

    def until(self, changes: int) -> "Promises":
        """Return what stands when the power goes off behind so many changes."""
        kept = Promises()
        kept.given = set(self.given)
        kept.acknowledged = {r: 0 for r, at in self.acknowledged.items() if at <= changes}
        kept.shown = {s: (root, 0) for s, (root, at) in self.shown.items() if at <= changes}
        kept.doubled = list(self.doubled)
        return kept

    def show(self, size: int, root: bytes, changes: int) -> None:
        """Take note of a checkpoint."""
        held = self.shown.setdefault(size, (root, changes))
        if held[0] != root:
            self.doubled.append(size)


class Entries:
    """Makes entries that look like those of a router; each is another. Synthetic persons."""

    def __init__(self, keys: Keys, chance: Random) -> None:
        self._chance = chance
        self._tokens = {quarter: Tokens(load(keys.quarters, quarter)) for quarter in QUARTERS}
        self._number = 0

    def exchange(self, now_ns: int) -> tuple[bytes, Later | None]:
        """Return a request, and what makes the records behind it; None where it was refused."""
        chance, tokens = self._chance, self._of(now_ns)
        self._number += 1
        exchange = chance.getrandbits(96).to_bytes(12, "big") + self._number.to_bytes(4, "big")
        code = int(chance.choice((0, 0, 0, 0, Code.NO_GRANT)))
        asker, source = chance.sample(_INSTITUTIONS, 2)
        request = Entry(
            kind=Kind.REQUEST,
            at_us=now_ns // 1000,
            exchange=exchange,
            code=code,
            service=chance.choice(_SERVICES),
            service_version=chance.randint(1, 3),
            requester=asker,
            sector=chance.choice((None, 11, 12)),
            user=tokens.user(person(_PERSONS + chance.randrange(9))),
            person=tokens.person(person(chance.randrange(_PERSONS))),
            ticket=tokens.ticket(asker, str(self._number)),
            destinations=(source,),
            grant="g-1",
            request_bytes=chance.randrange(5000),
            router_us=chance.randrange(900),
        )
        return canonical(request), None if code else lambda later_ns: self._behind(
            request, later_ns
        )

    def _behind(self, request: Entry, now_ns: int) -> list[bytes]:
        chance, tokens = self._chance, self._of(now_ns)
        outcome = Entry(
            kind=Kind.OUTCOME,
            at_us=now_ns // 1000,
            exchange=request.exchange,
            code=Code.ANSWERED_WITH_DATA,
            service=request.service,
            service_version=request.service_version,
            requester=request.requester,
            user=tokens.user(person(_PERSONS + chance.randrange(9))),
            source_us=chance.randrange(90_000),
        )
        records = [canonical(outcome)]
        if chance.random() < 0.2:
            other = tokens.person(person(chance.randrange(_PERSONS)))
            further = Entry(
                kind=Kind.FURTHER, at_us=now_ns // 1000, exchange=request.exchange, person=other
            )
            records.insert(0, canonical(further))
        return records

    def _of(self, now_ns: int) -> Tokens:
        return self._tokens[QUARTERS[now_ns >= quarter_begin_ns(QUARTERS[1])]]
