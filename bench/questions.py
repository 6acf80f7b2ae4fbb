"""Requests for the bench of decisions: about persons from all over the directory, mixed."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from bench.ruleset import REQUESTERS, SERVICES, TODAY, USERS, uri_of
from ksz_router.codes import Code
from ksz_router.daemon.session import Session
from ksz_router.daemon.tables import Tables
from ksz_router.decision import Forward, decide
from ksz_router.directory import folder as directories
from ksz_router.directory.packing import unpack_key
from ksz_router.link import Link
from ksz_router.messages import Request

BATCH = 64
DRAWN, DRAWN_MIN = 40, 65_536
"""Persons for each request that is kept, since most are not known to who asks; and at least."""
FORWARD_SHARE = 0.8
"""Of the requests; the others are refused, for each of the reasons in ``REFUSALS``."""
REFUSALS = {
    Code.ROLE_NOT_HELD, Code.NO_ACCESS_RIGHT, Code.ACCESS_RIGHT_NOT_IN_FORCE,
    Code.SERVICE_NOT_IN_ACCESS_RIGHT, Code.AUTHENTICATION_TOO_WEAK, Code.NO_GRANT,
    Code.CAPACITY_NOT_GRANTED, Code.GRANT_NOT_IN_FORCE, Code.PERSON_NOT_INTEGRATED,
    Code.PERIOD_NOT_COVERED, Code.PERSON_CANCELLED, Code.NO_SOURCE_KNOWS_THE_PERSON,
}  # fmt: skip

Batch = list[tuple[Session, Request]]


class DecideError(Exception):
    """The bench cannot be run, or what it compares is not the same."""


def persons(directory: Path, requests: int) -> list[str]:
    """Return numbers from all over the directory, enough for so many requests.

    To be called before the directory is opened: a process opens it once.
    """
    count = max(DRAWN_MIN, requests * DRAWN)
    dice = random.Random(1)
    environment = directories.open_environment(directories.current(directory))
    found: list[str] = []
    try:
        known = environment.open_db(directories.PERSONS, create=False)
        with environment.begin(known) as view, view.cursor() as cursor:
            while len(found) < count:
                day = dice.randrange(100) * 10_000 + dice.randrange(1, 13) * 100
                near = (day + dice.randrange(1, 29)) * 100_000 + dice.randrange(100_000)
                if cursor.set_range(near.to_bytes(5, "big")):
                    found.append(unpack_key(cursor.key()))
    finally:
        environment.close()
    return found


def mixed(
    tables: Tables, numbers: Sequence[str], count: int
) -> tuple[list[Batch], dict[str, Batch]]:
    """Draw requests until there are enough that pass, and enough that do not for every reason.

    Returns:
        Batches in random order, and those that are refused, by reason.

    Raises:
        DecideError: the persons are too few.
    """
    dice = random.Random(2)
    sessions = {kbo: _session(kbo) for kbo, _ in USERS}
    wanted = round(count * FORWARD_SHARE)
    passed: Batch = []
    others: Batch = []
    refused: dict[str, Batch] = {}
    missing = set(REFUSALS)
    candidates = _requests(numbers, sessions, dice)
    while len(passed) < wanted or len(others) < count - wanted:
        batch = [one for one, _ in zip(candidates, range(BATCH), strict=False)]
        if not batch:
            names = ", ".join(sorted(code.name for code in missing))
            raise DecideError(f"the persons are too few; refused for every reason but {names}")
        for one, facts in zip(batch, tables.look_up(batch, 0), strict=True):
            verdict = decide(one[1], facts, TODAY)
            if isinstance(verdict, Forward):
                if len(passed) < wanted:
                    passed.append(one)
            elif len(others) + len(missing - {verdict.code}) < count - wanted:
                others.append(one)
                missing.discard(verdict.code)
                refused.setdefault(verdict.code.name, []).append(one)
    every = passed + others
    dice.shuffle(every)
    return [every[at : at + BATCH] for at in range(0, count, BATCH)], refused


def _session(kbo: str) -> Session:
    """A session that nobody is at the other end of: a look-up asks it for its URI only."""
    return Session(cast("Link", None), uri_of(kbo), 0)


def _requests(
    numbers: Sequence[str], sessions: dict[str, Session], dice: random.Random
) -> Iterator[tuple[Session, Request]]:
    """Most as they should be but for the person; of others one thing is wrong."""
    users = [
        (user, row) for user, row in USERS.items() for _ in range(1 if row[1].end < TODAY else 8)
    ]
    services = list(SERVICES)
    for number, person in enumerate(numbers):
        (kbo, user), (asks, right) = dice.choice(users)
        service = dice.choice(right.services or services)
        role, capacity, level = (asks.sector, asks.type), asks.capacity, right.level
        fault = dice.randrange(40)
        if fault == 0:
            other = dice.choice(REQUESTERS)
            role = other.sector, other.type
        elif fault == 1:
            capacity += 1
        elif fault == 2:
            level = 0
        elif fault == 3:
            service = dice.choice(services)
        elif fault == 4:
            user = dice.choice(users)[0][1]
        day = dice.randrange(2016, 2026) * 10_000 + dice.randrange(1, 13) * 100 + 1
        asked = day if dice.random() < 0.5 else None
        yield (
            sessions[kbo],
            Request(
                id=number, service=service, version=1, ticket=f"bench-{number}", user=user,
                means="eid", level=level, sector=role[0], type=role[1], capacity=capacity,
                person=person, begin=asked, end=asked, payload=bytes(300),
            ),
        )  # fmt: skip
