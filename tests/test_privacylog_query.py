"""Questions to the log: who asked what about whom; every question recorded before its answer."""

import os
from pathlib import Path
from typing import Any

import pytest

from ksz_router.codes import Code
from ksz_router.identifiers import Insz, Kbo
from ksz_router.limits import MIB
from ksz_router.privacylog.header import PAGE
from ksz_router.privacylog.keys import Tokens, load
from ksz_router.privacylog.query import query
from ksz_router.privacylog.question import Asked, Found, Position, PositionRefused
from ksz_router.privacylog.reading import record_reading
from tests.privacylog_world import (
    CPAS,
    KADASTER,
    NEXT_QUARTER,
    NEXT_QUARTER_NS,
    NOW_NS,
    NSSO,
    OTHER,
    PERSON,
    RENUMBERED,
    SUPPLIER,
    USER,
    World,
    crash,
    filled,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def ask(world: World, *, limit: int = 1000, **asked: Any) -> Found:
    return query(world.log, world.keys, Asked(**asked), limit=limit)


def numbers(found: Found) -> list[int]:
    return [int.from_bytes(row.exchange or b"") for row in found.rows]


def test_a_person_is_found_as_asked_as_replaced_and_as_further(world: World) -> None:
    """All ways in which an exchange can concern somebody, over all slots, in the order of time."""
    filled(world)
    found = ask(world, persons=(Insz(PERSON),))
    assert numbers(found) == [1, 2, 3, 5]
    assert found.more is None
    assert found.damaged == []
    first, second, third, fifth = found.rows
    assert (first.code, first.outcomes[0][0], first.duration_us) == (0, 10001, 5000)
    assert (second.code, second.outcomes, second.duration_us) == (int(Code.NO_GRANT), (), None)
    assert third.replaced
    assert (fifth.further_persons, fifth.requester) == (1, NSSO)
    assert numbers(ask(world, persons=(Insz(RENUMBERED),))) == [3]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"institution": CPAS}, [3]),
        ({"institution": KADASTER}, [1, 2, 3, 4, 5]),
        ({"institution": Kbo("0999016460")}, []),
        ({"user": USER}, [1, 2, 3, 4, 5]),
        ({"user": SUPPLIER}, [1]),
        ({"service": "family.consult"}, [5]),
        ({"verdict": 0}, [1, 3, 4, 5]),
        ({"verdict": Code.NO_GRANT}, [2]),
        ({"persons": (Insz(PERSON),), "service": "family.consult"}, [5]),
        ({"persons": (Insz(PERSON),), "service": "pension.consult"}, [1, 2, 3]),
        ({"persons": (Insz(PERSON),), "user": SUPPLIER}, [1]),
        ({"persons": (Insz(OTHER),), "user": SUPPLIER}, []),
        ({"persons": (Insz(PERSON),), "institution": CPAS, "verdict": 0}, [3]),
        ({"from_day": 20261119}, []),
        ({"from_day": 20261118, "to_day": 20261118}, [1, 2, 3, 4, 5]),
        ({"to_day": 20261117}, []),
        ({"institution": NSSO, "user": USER}, [1, 2, 4, 5]),
        ({"institution": KADASTER, "user": USER}, []),
        ({"institution": KADASTER, "user": SUPPLIER}, [1]),
        ({"exchange": (5).to_bytes(16, "big")}, [5]),
        ({"exchange": (5).to_bytes(16, "big"), "verdict": 4001}, []),
        ({"institution": NSSO, "ticket": "T-1"}, []),
    ],
)
def test_what_is_asked_holds_of_every_row(
    world: World, asked: dict[str, Any], expected: list[int]
) -> None:
    """Each part of a question, and parts that lie in different entries of one exchange."""
    filled(world)
    assert numbers(ask(world, **asked)) == expected


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_a_limit_keeps_the_earliest_and_says_so(world: World, limit: int) -> None:
    """Memory is bounded by the limit; nobody takes a part for the whole."""
    filled(world)
    found = ask(world, limit=limit)
    assert numbers(found) == [1, 2, 3, 4, 5][:limit]
    assert (found.more is not None) == (limit < 5)


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_position_leads_to_the_next_page(world: World, limit: int) -> None:
    """Rows of one moment on both sides of it, readings of one moment that look the same too."""
    filled(world)
    for reader in ("dpo", "dpo", "audit"):
        record_reading(
            world.log, world.keys, node="n", reader=reader, purpose="x", verb="log query",
            now_ns=NOW_NS,
        )  # fmt: skip
    whole = ask(world).rows
    assert [row.reader for row in whole[:3]] == ["audit", "dpo", "dpo"]
    assert len(whole) == 8
    rows, after = [], None
    for _ in range(-(-8 // limit)):
        found = query(world.log, world.keys, Asked(), limit=limit, after=after)
        rows += found.rows
        after = found.more and Position.parse(found.more.encode())
    assert (rows, after) == (whole, None)


@pytest.mark.parametrize("word", ["", "x", "\u00e9", "AAAA" * 9, "-"])
def test_a_word_that_no_query_printed_is_refused(word: str) -> None:
    """Whatever it is."""
    with pytest.raises(PositionRefused):
        Position.parse(word)


def test_a_ticket_is_found_under_its_requester_and_quarter(world: World) -> None:
    """The hash is another one for each institution, and in each quarter."""
    late = Tokens(load(world.keys, NEXT_QUARTER))
    writer = world.open()
    writer.commit([world.request(1, ticket=world.tokens.ticket(NSSO, "T-1"))], NOW_NS)
    writer.commit([world.request(2, ticket=world.tokens.ticket(CPAS, "T-1"))], NOW_NS)
    ticket, at_us = late.ticket(NSSO, "T-1"), NEXT_QUARTER_NS // 1000
    writer.commit([world.request(3, ticket=ticket, at_us=at_us)], NEXT_QUARTER_NS)
    writer.close()
    assert numbers(ask(world, institution=NSSO, ticket="T-1")) == [1, 3]
    assert numbers(ask(world, institution=NSSO, ticket="T-2")) == []


def test_a_person_is_found_over_quarters_although_tokens_differ(world: World) -> None:
    """An entry has tokens of its own moment, also where its file is already the next quarter's."""
    late = Tokens(load(world.keys, NEXT_QUARTER))
    writer = world.open()
    writer.commit([world.request(1)], NOW_NS)
    just_before = NEXT_QUARTER_NS // 1000 - 1
    writer.commit([world.request(2, at_us=just_before)], NEXT_QUARTER_NS)
    at_us = NEXT_QUARTER_NS // 1000
    writer.commit([world.request(3, at_us=at_us, tokens=late)], NEXT_QUARTER_NS)
    writer.close()
    assert numbers(ask(world, persons=(Insz(PERSON),))) == [1, 2, 3]


def test_damage_is_named_and_the_rest_is_shown(world: World) -> None:
    """Rows before the damage, of other slots too, and a word on what may be missing."""
    filled(world)
    file = world.files()[0]
    data = bytearray(file.read_bytes())
    data[2 * 4096 + 100] ^= 1
    file.write_bytes(data)
    world.open(slot="w2").close()
    found = ask(world)
    assert numbers(found) == [1, 2, 3, 4, 5]
    assert found.damaged == []  # the newest frame of a killed writer: a torn tail
    data[4096 + 100] ^= 1
    data[2 * 4096 + 100] ^= 1
    file.write_bytes(data)
    found = ask(world)
    assert numbers(found) == [3, 4, 5]
    assert [str(file) in what for what in found.damaged] == [True]


def test_an_entry_made_just_before_its_file_s_quarter_is_found(world: World) -> None:
    """Its tokens are of the quarter before, of which this log has no file."""
    world.now_ns = NEXT_QUARTER_NS
    writer = world.open()
    just_before = NEXT_QUARTER_NS // 1000 - 1
    writer.commit([world.request(2, at_us=just_before)], NEXT_QUARTER_NS)
    writer.close()
    assert numbers(ask(world, persons=(Insz(PERSON),))) == [2]


def test_a_frame_that_was_lost_shows_by_the_next_and_no_zeros_are_read_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live file is filled with zeros ahead: of many megabytes of them a question reads two."""
    writer = world.open(file_bytes=8 * MIB)
    for number in (1, 2, 3):
        writer.commit([world.request(number)], world.now_ns)
    crash(writer)
    read: list[int] = []
    kept = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        read.append(size)
        return kept(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert query(world.log, world.keys, Asked(persons=(Insz(PERSON),))).damaged == []
    assert sum(read) < 2 * 3 * MIB  # it reads twice
    (file,) = world.files()
    with file.open("r+b") as stream:
        stream.seek(2 * PAGE)
        stream.write(bytes(PAGE))
    found = query(world.log, world.keys, Asked(persons=(Insz(PERSON),)))
    assert [row.exchange for row in found.rows] == [(1).to_bytes(16, "big")]
    assert "a whole frame stands at byte" in found.damaged[0]
