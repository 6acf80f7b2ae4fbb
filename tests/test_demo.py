"""The demonstration: its table, its checks, and one run of the whole."""

import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contrib.demo import audit, table
from contrib.demo.cast import CENTRE, NIC, POD_MI, RVA, Step
from contrib.demo.conversation import UNSEEN, Told, faults_of
from contrib.demo.sources import Sources, payload
from contrib.demo.story import chapters
from ksz_router.codes import MEANINGS, Code, Stage
from ksz_router.directory.synthesise import landmarks
from ksz_router.messages import Answer, RecipientStatus

ROOT = Path(__file__).parents[1]
PERSONS = landmarks(1)
STEPS = [s for chapter in chapters(PERSONS, PERSONS["answered"]) for s in chapter.steps]
EXCHANGE = uuid.UUID(int=7).bytes
ANSWERED = next(s for s in STEPS if s.went_to == (RVA,))
AGAIN = next(s for s in STEPS if s.told_again)
FOLLOWED = next(s for s in STEPS if s.delivered)


def answer(code: Code, went_to: tuple[str, ...] = (), **fields: Any) -> Answer:
    meaning = MEANINGS[code]
    values: dict[str, Any] = {
        "id": 1, "exchange": EXCHANGE, "code": int(code), "stage": int(code.stage),
        "official": meaning.official, "status": meaning.status, "action": int(meaning.action),
        "generation": "g", "recipients": tuple(RecipientStatus(k, int(code)) for k in went_to),
    }  # fmt: skip
    return Answer(**(values | fields))


def as_expected(step: Step) -> tuple[Answer, Sources]:
    """The answer that a step expects, and sources that saw what they must."""
    sources = Sources()
    for kbo in set(step.went_to) - UNSEEN:
        sources.delivered[EXCHANGE, kbo] = step.delivered or step.request.person
        sources.times[EXCHANGE, kbo] += 1
    has_payload = len(step.went_to) == 1 and step.expected is Code.ANSWERED_WITH_DATA
    body = payload(step.went_to[0], step.request.service) if has_payload else b""
    detail = dict(step.detail)
    if step.told_again:
        detail |= {"retry": "08" * 16, "payloadDigest": hashlib.sha256(body).hexdigest()}
        body = b""
    return answer(step.expected, step.went_to, detail=detail, payload=body), sources


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_a_step_that_goes_as_told_has_no_fault_and_fits_the_table(step: Step) -> None:
    """Two lines of at most 100 characters, aligned, without a number of a person."""
    given, sources = as_expected(step)
    assert list(faults_of(step, given, 0.1, sources)) == []
    lines = list(table.row(1, step, given, ()))
    assert len(lines) == 2
    assert all(len(line) <= len(table.RULE) + 1 for line in lines), lines
    assert len({len(line) for line in lines}) == 1
    assert not re.search(r"\d{11}", "".join(lines) + repr(step))


@pytest.mark.parametrize(
    ("step", "change", "fault"),
    [
        (ANSWERED, {"code": Code.NO_GRANT}, "NO_GRANT instead of ANSWERED_WITH_DATA"),
        (ANSWERED, {"recipients": ()}, "went to nobody instead of"),
        (ANSWERED, {"recipients": (RecipientStatus(NIC, 10001),)}, "instead of"),
        (ANSWERED, {"exchange": bytes(16)}, "reached nobody"),
        (ANSWERED, {"payload": b"other"}, "not what the source answered"),
        (ANSWERED, {"detail": {"retry": "08" * 16}}, "was told again"),
        (AGAIN, {"detail": {}}, "was not told again"),
        (AGAIN, {"payload": b"again"}, "not what the source answered"),
        (AGAIN, {"detail": {"retry": "08" * 16}}, "not that of what the source answered"),
    ],
)
def test_every_deviation_is_named(step: Step, change: dict[str, Any], fault: str) -> None:
    """Another code, another source, none, another payload: each is a fault."""
    given, sources = as_expected(step)
    found = list(faults_of(step, msgspec.structs.replace(given, **change), 0.1, sources))
    assert any(fault in text for text in found), found


def test_a_wrong_person_a_wrong_detail_and_a_late_answer_are_named() -> None:
    """A source asked for the old number, one asked twice, a missing new number, and the clock."""
    given, sources = as_expected(FOLLOWED)
    sources.delivered[EXCHANGE, NIC] = FOLLOWED.request.person
    assert list(faults_of(FOLLOWED, given, 0.1, sources)) == [
        "a source was asked for another person"
    ]
    given, sources = as_expected(AGAIN)
    sources.times[EXCHANGE, POD_MI] += 1
    assert list(faults_of(AGAIN, given, 0.1, sources)) == ["was delivered more than once"]
    refused = next(s for s in STEPS if s.detail)
    bare = msgspec.structs.replace(as_expected(refused)[0], detail={"newSSIN": ""})
    assert len(list(faults_of(refused, bare, 0.1, Sources()))) == 1
    given, sources = as_expected(ANSWERED)
    assert len(list(faults_of(ANSWERED, given, 9.0, sources))) == 1


def test_the_story_meets_every_stage() -> None:
    """A refusal at each stage of the control, a source that is down and one that hangs."""
    stages = {step.expected.stage for step in STEPS}
    assert stages == set(Stage) - {Stage.LINK}
    assert {Code.SOURCE_UNREACHABLE, Code.SOURCE_SILENT} <= {step.expected for step in STEPS}


def row_of(code: int, outcome: int | None = None, exchange: int = 7) -> Mapping[str, Any]:
    outcomes = [{"code": outcome}] if outcome else []
    name = str(uuid.UUID(int=exchange))
    return {"kind": "REQUEST", "exchange": name, "code": code, "outcomes": outcomes}


@pytest.mark.parametrize(
    ("rows", "logged", "faults"),
    [
        ([row_of(0, 10001)], 1, 0),
        ([row_of(0, 9004)], 0, 1),
        ([row_of(4001)], 0, 1),
        ([row_of(0)], 0, 1),
        ([], 0, 1),
        ([row_of(0, 10001), row_of(4001, exchange=8)], 1, 1),
        ([{**row_of(0, 10001), "kind": "READING"}], 0, 1),
    ],
)
def test_the_log_must_hold_exactly_what_was_answered(
    rows: list[Mapping[str, Any]], logged: int, faults: int
) -> None:
    """An exchange that is missing, that ended otherwise, or that nobody asked is a fault."""
    count, found = audit.compare(rows, [answer(Code.ANSWERED_WITH_DATA)])
    assert (count, len(found)) == (logged, faults)


@pytest.mark.parametrize(
    "flaw", ["faults", "sent", "logged", "verified", "proved", "replayed", "tamper_detected"]
)
def test_one_flaw_fails_the_demonstration(flaw: str) -> None:
    """ "ok" only if every exchange was answered and logged, and verification does its work."""
    told = Told(
        answers=[(ANSWERED, as_expected(ANSWERED)[0])], sent=1, logged=1, verified=True,
        proved=True, replayed=True, tamper_detected=True,
    )  # fmt: skip
    assert told.summary()["demo"] == "ok"
    setattr(told, flaw, ["something"] if flaw == "faults" else 0)
    assert told.summary()["demo"] == "failed"


def test_a_retry_is_looked_for_under_its_own_exchange_id() -> None:
    """The answer names the first attempt; the log has both, under two ids."""
    told_again = answer(Code.ANSWERED_WITH_DATA, detail={"retry": uuid.UUID(int=8).hex})
    first, retry = row_of(0, 10001), row_of(0, 10001, exchange=8)
    assert audit.compare([first, retry], [answer(Code.ANSWERED_WITH_DATA), told_again]) == (2, [])
    assert audit.compare([first], [told_again])[0] == 0


def test_the_readme_says_how_many_exchanges_there_are() -> None:
    """As many as the story has steps."""
    assert f"{len(STEPS)} exchanges, explained" in (ROOT / "README.md").read_text("utf-8")


def test_of_many_logged_rows_both_ends_are_shown() -> None:
    """Who asked first and who asked last; how many stand between is said."""
    rows = [
        {**row_of(4001, exchange=n), "at_us": n * 10**6, "requester": CENTRE, "service": f"S{n}",
         "destinations": []}
        for n in range(10)
    ]  # fmt: skip
    lines = list(table.logged(rows, first=2, last=3))
    assert [re.findall(r"S\d|\.\.\. \d+ more", line) for line in lines[1:]] == [
        ["S0"], ["S1"], ["... 5 more"], ["S7"], ["S8"], ["S9"],
    ]  # fmt: skip
    assert len(list(table.logged(rows, first=8, last=2))) == 11


def test_the_whole_runs_and_cleans_up(tmp_path: Path) -> None:
    """The last line says that all of it held; no line is too long, no folder is left."""
    words = [sys.executable, str(ROOT / "contrib" / "demo" / "run.py")]
    surroundings = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    *lines, last = done.stdout.splitlines()
    assert json.loads(last) == {
        "demo": "ok",
        "exchanges": len(STEPS),
        "refused": sum(Stage.LINK < step.expected.stage < Stage.ROUTING for step in STEPS),
        "logged": len(STEPS),
        "verified": True,
        "proved": True,
        "replayed": True,
        "tamper_detected": True,
    }
    assert max(map(len, lines)) <= 100
    assert not re.search(r"\b\d{11}\b", done.stdout)
    assert list(tmp_path.iterdir()) == []
    assert done.stderr == ""
