"""Periods of data, subscriptions, distribution codes, directories of networks: on real tables."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import pytest

from ksz_router.codes import MEANINGS, Action, Code
from ksz_router.daemon.opened import Exchange
from ksz_router.daemon.session import Session
from ksz_router.days import brussels_day
from ksz_router.decision import Forward, Verdict, decide, explain
from ksz_router.directory.sectoral import Sectoral
from ksz_router.messages import Request
from ksz_router.model import Distribution
from ksz_router.privacylog.entry import Entry, parse
from ksz_router.replay.again import State
from ksz_router.replay.replay import Replay
from tests import routes_ground as g
from tests.daemon_ground import Ground
from tests.daemon_parts import in_trio, parts
from tests.replay_ground import Somebody, exchange_of, write_log
from tests.routes_ground import career, insured
from tests.worlds import CENTRE, FUND, NIC, NOW_MS, PERSON, RSZ, RVA, ask, uri

W = Code.ANSWERED_WITH_DATA
MOMENT_NS = NOW_MS * 1_000_000


class Judged(NamedTuple):
    """What the control said, and the entry that the router makes of it."""

    verdict: Verdict
    entry: Entry

    @property
    def code(self) -> int:
        return 0 if isinstance(self.verdict, Forward) else int(self.verdict.code)

    @property
    def put_to(self) -> list[str]:
        return [found.kbo for found in cast("Forward", self.verdict).put_to]


def judged(ground: Ground, who: str, request: Request, number: int = 1) -> Judged:
    """Have the worker's tables and the control judge a request, and make its entry."""
    session = cast("Session", Somebody(uri(who)))
    (facts,) = ground.tables.look_up([(session, request)], NOW_MS)
    verdict = decide(request, facts, brussels_day(MOMENT_NS))
    assert explain(request, facts, brussels_day(MOMENT_NS))[1] == verdict
    put_to = verdict.put_to if isinstance(verdict, Forward) else ()
    ground.entries.now_us = lambda: MOMENT_NS // 1000
    exchange = Exchange(
        exchange_of(number), session, request, 0, 0, facts, verdict, ground.tables.generation,
        tuple([found.kbo for found in put_to]),
    )  # fmt: skip
    return Judged(verdict, parse(ground.entries.request(exchange)))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = g.make_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def notice(**changes: object) -> Request:
    return ask(**({"service": "Notice", "version": 1, "ticket": "n"} | changes))


PASSED: dict[str, tuple[str, Request, list[str]]] = {
    # Who has the data of the day asked is found, without being named.
    "today": (CENTRE, career(), [RVA]),
    "both hold a part: by order": (CENTRE, career(begin=20191201, end=20200131), [RSZ]),
    "one holds all: it is asked, whatever the order": (
        CENTRE, career(begin=20200101, end=20200131), [RVA],
    ),
    "open": (CENTRE, career(begin=20200101), [RVA]),
    # Who subscribed to what.
    "a change": (CENTRE, notice(), [RVA, RSZ]),
    "nothing new": (CENTRE, notice(unchanged=True), [RSZ]),
    "named by its sender": (CENTRE, notice(service="Named", source=RVA), [RVA]),
    # The directory of the network.
    "in both": (FUND, insured(), [NIC]),
    "logged": (FUND, insured(service="InsuredLog", person=g.ABSENT), [NIC]),
    "from outside of the network": (CENTRE, notice(service="Spread", person=g.WELL), [RVA, NIC]),
    "who is not in its network's directory is left out": (
        CENTRE, notice(service="Spread", person=g.ELSEWHERE), [RVA],
    ),
    "code Z": (FUND, insured(service="Insure"), [RVA, NIC]),
}  # fmt: skip
REFUSED: dict[str, tuple[str, Request, Code]] = {
    "period of nobody": (
        CENTRE, career(begin=20200101, source=RSZ), Code.NO_SOURCE_HOLDS_THE_PERIOD,
    ),
    "before it": (
        CENTRE, career(begin=20191201, end=20191231, source=RVA), Code.NO_SOURCE_HOLDS_THE_PERIOD,
    ),
    "nobody subscribed": (
        CENTRE, notice(service="Named", source=RVA, unchanged=True), Code.NO_RECIPIENT_SUBSCRIBED,
    ),
    "named, and the directory is to": (CENTRE, notice(source=RVA), Code.FIELD_MALFORMED),
    "not named": (CENTRE, notice(service="Named"), Code.FIELD_MALFORMED),
    "not in network": (FUND, insured(person=g.ABSENT), Code.SECTORAL_NOT_INTEGRATED),
    "low": (FUND, insured(person=g.LOW), Code.SECTORAL_PHASE_TOO_LOW),
    "late": (FUND, insured(person=g.LATE), Code.SECTORAL_PERIOD_NOT_COVERED),
    "not at source": (
        FUND, insured(person=g.ELSEWHERE), Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY,
    ),
    "primary first": (FUND, insured(person=PERSON), Code.PHASE_TOO_LOW),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED)
def test_who_is_asked(ground: Ground, name: str) -> None:
    """Everyone who fits, and nobody else."""
    who, request, expected = PASSED[name]
    found = judged(ground, who, request)
    assert (found.code, found.put_to) == (0, expected)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(ground: Ground, name: str) -> None:
    """Each under a code of its own."""
    who, request, expected = REFUSED[name]
    assert judged(ground, who, request).code == expected


def test_what_is_broken_in_a_network_and_logged_stands_in_the_entry(ground: Ground) -> None:
    """Mode and code of the network's rule, and the line of the primary directory that decided."""
    found = judged(ground, FUND, insured(service="InsuredLog", person=g.ABSENT))
    assert found.entry.violations == (
        "sectoral:log:SECTORAL_NOT_INTEGRATED", f"source:log:{NIC}",
    )  # fmt: skip
    assert found.entry.line is not None


def test_a_directory_of_a_network_that_is_down_is_no_unknown_person(tmp_path: Path) -> None:
    """It is said as a source that is down (MSG00002), and serves again once it can be read."""
    ground = g.make_ground(tmp_path, is_hosted=False)
    try:
        assert list(ground.tables.sectoral.news()) == [g.NETWORK]
        spread = notice(service="Spread", person=g.WELL)  # nobody is left out in silence
        for who, request in ((FUND, insured()), (CENTRE, spread)):
            assert judged(ground, who, request).code == Code.SECTORAL_DIRECTORY_DOWN
        assert MEANINGS[Code.SECTORAL_DIRECTORY_DOWN].official == "MSG00002"
        logged = judged(ground, FUND, insured(service="InsuredLog"))
        assert logged.code == 0
        assert logged.entry.violations[0] == "sectoral:log:SECTORAL_DIRECTORY_DOWN"
        assert judged(ground, CENTRE, career()).code == 0  # nobody else is hurt

        g.load_network(tmp_path)
        assert judged(ground, FUND, insured()).code == Code.SECTORAL_DIRECTORY_DOWN
        ground.tables.refresh_directory()
        assert ground.tables.sectoral.news() == {g.NETWORK: ""}
        assert judged(ground, FUND, insured()).code == 0
    finally:
        ground.close()


def test_a_copied_directory_of_a_network_is_not_served(tmp_path: Path) -> None:
    """The rules of the primary directory hold: what was copied is checked first."""
    g.load_network(tmp_path)
    shutil.copytree(tmp_path / "sectoral", tmp_path / "copied")
    for folder, is_down in (("sectoral", False), ("copied", True)):
        sectoral = Sectoral(tmp_path / folder)
        sectoral.keep([g.NETWORK])
        assert (g.NETWORK in sectoral.down) is is_down
        (held,) = sectoral.look_up([(g.WELL, (g.NETWORK,))])
        assert held is not None
        assert (g.NETWORK in held) is not is_down
        sectoral.close()


def test_what_was_decided_is_decided_again(tmp_path: Path) -> None:
    """Whatever an entry leaves open of periods, subscriptions and networks: no false alarm."""
    ground = g.make_ground(tmp_path)
    asked = [(who, request) for who, request, _ in (*PASSED.values(), *REFUSED.values())]
    entries = [
        judged(ground, who, request, number).entry for number, (who, request) in enumerate(asked)
    ]
    ground.close()
    write_log(tmp_path / "log", ground.keys_folder, entries)
    with closing(Replay(tmp_path / "log", ground.keys_folder, ground.world.store)) as replay:
        for name, entry in zip((*PASSED, *REFUSED), entries, strict=True):
            again = replay.again(replay.numbers(entry))
            assert (name, again.state, again.why, again.differences) == (name, State.SAME, "", ())
        (again,) = [
            replay.again(replay.numbers(_renamed(entry)))
            for entry in entries
            if entry.code == Code.SECTORAL_PHASE_TOO_LOW
        ]
        assert again.state is State.DIFFERS


def _renamed(entry: Entry) -> Entry:
    """As if the grant were another's."""
    return msgspec.structs.replace(entry, grant="ocmw-handi")


@in_trio
async def test_a_source_that_holds_a_part_of_the_period_is_said_to(ground: Ground) -> None:
    """The period is delivered as it was asked; the answer names the days of which there is data."""
    async with parts(ground) as p:
        rsz, rva, centre = p.add_source(RSZ), p.add_source(RVA), await p.connect()
        # The person is known to the centre from 2020 on, so the day before is of no use to it.
        centre.ask(career(begin=20200101, end=20200131), career(id=2))
        await p.until(lambda: len(rva.deliveries) == 2)
        for index in range(2):
            rva.reply(index)
        await p.until(lambda: len(centre.answers) == 2)
        assert [answer.detail for answer in centre.answers] == [{}, {}]

        centre.ask(career(id=3, service="Old", begin=20200101))
        await p.until(lambda: rsz.deliveries)
        assert (rsz.last.begin, rsz.last.end) == (20200101, None)
        rsz.reply()
        await p.until(lambda: len(centre.answers) == 3)
        assert centre.answer_to(3).detail == {"dataEnd": "20221231"}


@in_trio
async def test_one_recipient_that_answered_is_enough_under_code_z(ground: Ground) -> None:
    """And the answer says how each did; under code M it is answered in part."""
    async with parts(ground) as p:
        rva, fund, centre = p.add_source(RVA), await p.connect(FUND), await p.connect()
        p.add_source(NIC, listens=False)
        p.add_source(RSZ, listens=False)
        fund.ask(insured(service="Insure"))
        centre.ask(notice())
        await p.until(lambda: len(rva.deliveries) == 2)
        rva.reply(0, payload=b"")
        rva.reply(1, payload=b"")
        await p.until(lambda: fund.answers and centre.answers)
        (z,), (m,) = fund.answers, centre.answers
        assert {s.kbo: s.code for s in z.recipients} == {NIC: Code.SOURCE_UNREACHABLE, RVA: W}
        assert (z.code, z.action) == (W, Action.NONE)
        assert {s.kbo: s.code for s in m.recipients} == {RSZ: Code.SOURCE_UNREACHABLE, RVA: W}
        assert (m.code, m.action) == (Code.ANSWERED_IN_PART, Action.RETRY_AT)
        service = ground.tables._snapshot.service("Insure", 1)
        assert service is not None
        assert service.distribution is Distribution.SUBMISSION
