"""Random logs as routers write them, and random questions to them."""

import random
from collections.abc import Iterator
from typing import Any

from ksz_router.codes import Code
from ksz_router.identifiers import Insz
from ksz_router.privacylog.entry import Entry, Kind, canonical
from ksz_router.privacylog.keys import Tokens, load
from ksz_router.privacylog.question import Asked
from tests.privacylog_world import (
    CPAS,
    KADASTER,
    NEXT_QUARTER,
    NEXT_QUARTER_NS,
    NSSO,
    OTHER,
    PERSON,
    QUARTER,
    RENUMBERED,
    SUPPLIER,
    USER,
    World,
)

PERSONS = (PERSON, RENUMBERED, OTHER)
USERS = (USER, SUPPLIER)
PROGRAMS = ("00000000100", "00000000101")
KBOS = (NSSO, CPAS, KADASTER)
SERVICES = ("pension.consult", "family.consult")
TICKETS = ("T-1", "T-2")
BEGIN_US = NEXT_QUARTER_NS // 1000 - 40
_REFUSED = (int(Code.NO_GRANT), int(Code.PERSON_UNKNOWN))
_ANSWERED = (int(Code.ANSWERED_WITH_DATA), int(Code.ANSWERED_WITHOUT_DATA))


class RandomLog:
    """Exchanges of two workers and readings, around the end of a quarter.

    The time goes on by some microseconds, so that moments are shared, and tokens change midway.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.random = random.Random(seed)
        self._world = world
        self._tokens = {q: Tokens(load(world.keys, q)) for q in (QUARTER, NEXT_QUARTER)}
        self._us = BEGIN_US
        self._number = 0
        self._slots = {slot: list[Iterator[list[Entry]]]() for slot in ("w0", "w1")}
        world.now_ns = BEGIN_US * 1000
        self._writers = {slot: world.open(slot=slot) for slot in self._slots}

    def go_on(self, steps: int) -> None:
        """Write the entries of so many steps; exchanges stay open at the end."""
        for _ in range(steps):
            slot = self.random.choice(list(self._slots))
            under_way = self._slots[slot]
            if len(under_way) < 3:
                under_way.append(self._exchange() if self.random.random() < 0.85 else self._read())
            self._us += self.random.choice((0, 0, 1, 3))
            self._world.now_ns = self._us * 1000
            chosen = self.random.choice(under_way)
            entries = next(chosen, None)
            if entries is None:
                under_way.remove(chosen)
                continue
            self._writers[slot].commit([canonical(e) for e in entries], self._us * 1000)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    @property
    def tokens(self) -> Tokens:
        return self._tokens[QUARTER if self._us * 1000 < NEXT_QUARTER_NS else NEXT_QUARTER]

    def some(self, *values: Any) -> Any:
        return self.random.choice(values)

    def _asker(self) -> dict[str, Any]:
        user = self.some(None, *USERS)
        program = self.some(None, *PROGRAMS)
        return {
            "user": None if user is None else self.tokens.user(user),
            "application": program,
        }

    def _read(self) -> Iterator[list[Entry]]:
        person, user = self.some(None, *PERSONS), self.some(None, USER)
        yield [
            Entry(
                kind=Kind.READING,
                at_us=self._us,
                service="log query",
                reader=self.some("dpo", "audit"),
                purpose="x",
                person=None if person is None else self.tokens.person(person),
                user=None if user is None else self.tokens.user(user),
                enterprise=self.some(None, NSSO),
            )
        ]

    def _exchange(self) -> Iterator[list[Entry]]:
        self._number += 1
        exchange = self._number.to_bytes(16, "big")
        person, asked = self.some(None, *PERSONS), self.some(None, None, RENUMBERED)
        requester = self.some(*KBOS, *KBOS, None)
        passed = requester is not None and self.random.random() < 0.8
        sent = tuple(self.random.sample(KBOS, self.some(1, 1, 1, 3))) if passed else ()
        shared = {"exchange": exchange, "service": self.some(*SERVICES), "requester": requester}
        code = 0 if passed else self.some(*_REFUSED)
        yield [
            Entry(
                kind=Kind.REQUEST,
                at_us=self._us,
                code=code,
                acting=self.some(None, CPAS),
                final_client=self.some(None, None, KADASTER),
                ticket=self.tokens.ticket(requester or "", self.some(*TICKETS)),
                person=None if person is None else self.tokens.person(person),
                asked=None if asked is None else self.tokens.person(asked),
                destinations=sent,
                violations=self.some((), (), ("own:log:PERSON_NOT_INTEGRATED",), ("source:log:1",)),
                **shared,
                **self._asker(),
            )
        ]
        if not passed:
            return
        if len(sent) > 1:
            for kbo in sent:
                yield [
                    self._end(Kind.RECIPIENT, shared, person, (kbo,), self.some(*_ANSWERED, 9004)),
                    *self._further(exchange),
                ]
        way = self.some("answer", "answer", "further", "silent", "late", "open")
        if way in ("answer", "further"):
            yield [
                self._end(Kind.OUTCOME, shared, person, sent[:1], self.some(*_ANSWERED)),
                *(self._further(exchange) if way == "further" else ()),
            ]
        elif way != "open":
            yield [self._end(Kind.OUTCOME, shared, person, sent, int(Code.SOURCE_SILENT))]
        if way == "late" or (len(sent) > 1 and way != "open" and self.some(True, False)):
            for _ in range(self.some(1, 1, 2)):
                late = self._end(
                    Kind.OUTCOME, shared, person, sent[:1], int(Code.ANSWER_DISCARDED), late=True
                )
                yield [late]

    def _end(
        self, kind: Kind, shared: dict[str, Any], person: str | None, sent: tuple[str, ...],
        code: int, *, late: bool = False,
    ) -> Entry:  # fmt: skip
        return Entry(
            kind=kind,
            at_us=self._us,
            code=code,
            person=None if person is None else self.tokens.person(person),
            destinations=sent,
            **({} if late else self._asker()),
            **shared,
        )

    def _further(self, exchange: bytes) -> list[Entry]:
        return [
            Entry(
                kind=Kind.FURTHER,
                at_us=self._us,
                exchange=exchange,
                person=self.tokens.person(person),
            )
            for person in self.random.sample(PERSONS, self.some(0, 1, 2))
        ]


def some_question(choose: random.Random) -> Asked:
    """A question of any kind."""
    kind = choose.choice(("person", "use", "any", "exchange", "ticket"))
    fields: dict[str, Any] = {}
    if kind == "person":
        fields["persons"] = tuple(map(Insz, choose.sample(PERSONS, choose.choice((1, 1, 2)))))
    if kind == "exchange":
        fields["exchange"] = choose.randrange(1, 30).to_bytes(16, "big")
    if kind == "ticket":
        fields |= {"institution": choose.choice(KBOS), "ticket": choose.choice(TICKETS)}
    if kind == "use" or choose.random() < 0.3:
        if kind == "use" or choose.random() < 0.5:
            fields["user"] = choose.choice((*USERS, *PROGRAMS))
        if choose.random() < 0.6:
            fields["institution"] = choose.choice(KBOS)
    if choose.random() < 0.2:
        fields["service"] = choose.choice((*SERVICES, "log query"))
    if choose.random() < 0.2:
        fields["verdict"] = choose.choice((0, *_REFUSED))
    if choose.random() < 0.2:
        fields["violation"] = choose.choice(("any", "own", "source", "recipient"))
    if choose.random() < 0.2:
        fields[choose.choice(("from_day", "to_day"))] = choose.choice((20261231, 20270101))
    return Asked(**fields)
