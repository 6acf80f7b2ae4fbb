"""Control modes: none, log and block, for own, source and recipient integration, as in the
rulebook; what is only logged is named in the entry, counted, and found again."""

import re
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest

from ksz_router.codes import Code
from ksz_router.privacylog.entry import Kind
from tests.daemon_ground import NOT_INTEGRATED, Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.kinds_ground import (
    STRANGE_DEAD,
    STRANGE_OLD,
    UNSOURCED,
    audit,
    consult,
    make_ground,
)
from tests.worlds import PERSON, POD_MI, RVA, ask

W = Code.ANSWERED_WITH_DATA
CONTROLS = ("own", "sectoral", "source", "recipient")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = make_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def counted(p: Parts) -> dict[str, float]:
    """What Prometheus is told of violations, by control."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(p.metrics)
    text = prometheus_client.generate_latest(registry).decode()
    found = re.findall(
        r'^ksz_router_violations_total\{control="(\w+)"\} (\S+)$', text, re.MULTILINE
    )
    return {control: float(value) for control, value in found}


def violations_found(p: Parts) -> dict[str, int]:
    """How many rows an auditor finds by each control."""
    return {control: len(audit(p, violation=control)) for control in (*CONTROLS, "any")}


CASES: list[tuple[str, str, Code, tuple[str, ...]]] = [
    ("Own-none", NOT_INTEGRATED, W, ()),
    ("Own-log", NOT_INTEGRATED, W, ("own:log:PERSON_NOT_INTEGRATED",)),
    ("Own-block", NOT_INTEGRATED, Code.PERSON_NOT_INTEGRATED, ()),
    ("Source-none", UNSOURCED, W, ()),
    ("Source-log", UNSOURCED, W, (f"source:log:{RVA}",)),
    ("Source-block", UNSOURCED, Code.NO_SOURCE_KNOWS_THE_PERSON, ()),
    ("Recipient-none", UNSOURCED, W, ()),
    ("Recipient-log", UNSOURCED, W, (f"recipient:log:{RVA}",)),
    ("Recipient-block", UNSOURCED, Code.NO_SOURCE_KNOWS_THE_PERSON, ()),
]


@pytest.mark.parametrize(
    ("service", "person", "code", "violations"), CASES, ids=[case[0] for case in CASES]
)
@in_trio
async def test_each_mode_does_what_it_says_and_no_more(
    ground: Ground, service: str, person: str, code: Code, violations: tuple[str, ...]
) -> None:
    """A broken rule: none does not look, log passes and tells, block refuses. A whole one passes
    in every mode, and tells nothing."""
    control = service.partition("-")[0].lower()
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(consult(service, person=person))
        await p.until(lambda: source.deliveries or caller.answers)
        if source.deliveries:
            assert source.last.person == person
            source.reply(payload=b"")
        await p.until(lambda: caller.answers)
        (answer,) = caller.answers
        assert answer.code == code
        request, *_ = p.entries_of(answer.exchange)
        assert (request.kind, request.violations) == (Kind.REQUEST, violations)
        assert counted(p) == {
            name: float(name == control and bool(violations)) for name in CONTROLS
        }
        assert [row.violations for row in audit(p, person)] == [violations]
        found = violations_found(p)
        assert found == {n: int(bool(violations) and n in (control, "any")) for n in found}

        caller.ask(consult(service, id=2, person=PERSON, ticket="ticket-2"))
        await p.until(lambda: source.deliveries and source.last.person == PERSON)
        source.reply(payload=b"")
        await p.until(lambda: len(caller.answers) == 2)
        assert caller.answer_to(2).code == W
        assert p.entries_of(caller.answer_to(2).exchange)[0].violations == ()
        assert violations_found(p) == found


@in_trio
async def test_a_mode_of_one_role_is_that_role_s_alone(ground: Ground) -> None:
    """The centres' broken rule is logged; another role's, of the same service, refuses."""
    async with parts(ground) as p:
        source, centre, jobs = p.add_source(RVA), await p.connect(), await p.connect(RVA)
        fields: dict[str, Any] = {"service": "Own-centres", "version": 1}
        centre.ask(ask(**fields, person=NOT_INTEGRATED))
        jobs.ask(ask(**fields, sector=18, type=0, capacity=4))
        await p.until(lambda: source.deliveries and jobs.answers)
        source.reply()
        await p.until(lambda: centre.answers)
        assert centre.answers[0].code == W
        assert jobs.answers[0].code == Code.PERSON_NOT_INTEGRATED
        assert violations_found(p) == dict.fromkeys(CONTROLS, 0) | {"own": 1, "any": 1}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, "PERSON_NOT_INTEGRATED"),
        ({"person": PERSON, "begin": 20100101, "end": 20101231}, "PERIOD_NOT_COVERED"),
    ],
)
@in_trio
async def test_the_entry_says_what_of_the_own_integration_is_broken(
    ground: Ground, changes: dict[str, Any], what: str
) -> None:
    """Not only that something is."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(consult("Own-log", **({"person": NOT_INTEGRATED} | changes)))
        await p.until(lambda: source.deliveries or caller.answers)
        (request,) = [entry for entry in p.durable if entry.kind == Kind.REQUEST]
        if source.deliveries:
            assert request.violations == (f"own:log:{what}",)
        else:  # the source does not know the person in that period either
            assert caller.answers[0].code == Code.NO_SOURCE_KNOWS_THE_PERSON


@in_trio
async def test_the_example_s_submission_is_sent_and_marked(ground: Ground) -> None:
    """The recipient does not know the person yet: it gets it, and the log says so."""
    async with parts(ground) as p:
        source, caller = p.add_source(POD_MI), await p.connect()
        caller.ask(ask(service="A036", version=1, person=UNSOURCED))
        await p.until(lambda: source.deliveries)
        source.reply(payload=b"")
        await p.until(lambda: caller.answers)
        assert caller.answers[0].code == W
        (row,) = audit(p, UNSOURCED, violation="recipient")
        assert row.violations == (f"recipient:log:{POD_MI}",)


@in_trio
async def test_who_is_only_logged_is_told_no_new_number_and_no_day_of_death(
    ground: Ground,
) -> None:
    """Passing with a broken rule is not knowing the person."""
    async with parts(ground) as p:
        caller = await p.connect()
        caller.ask(
            consult("Own-log", id=1, person=STRANGE_OLD),
            consult("Own-dead", id=2, person=STRANGE_DEAD),
        )
        await p.until(lambda: len(caller.answers) == 2)
        replaced, dead = caller.answer_to(1), caller.answer_to(2)
        assert (replaced.code, replaced.detail) == (Code.PERSON_REPLACED, {"field": "person"})
        assert (dead.code, dead.detail) == (Code.PERSON_DECEASED, {"field": "person"})
        assert counted(p) == dict.fromkeys(CONTROLS, 0.0), "what is refused did not pass"
