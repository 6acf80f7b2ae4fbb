"""The conversation of the demonstration: each request is sent, and its outcome judged.

What does not go as the step says is kept and shown; nothing is asked twice to make it go right.
"""

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import trio

from contrib.demo import table
from contrib.demo.sources import DOWN, Sources, payload
from contrib.demo.story import ASKING, Chapter, Step, chapters
from contrib.demo.terminal import bold, show
from contrib.stand import ROUTER_URI, Stand, StandError
from ksz_router.codes import Code
from ksz_router.messages import Answer
from ksz_router.sdk import Client, SdkError, open_client


class Told(msgspec.Struct):
    """What was seen so far."""

    answers: list[tuple[Step, Answer]] = []
    sent: int = 0
    logged: int = 0
    verified: bool = False
    tamper_detected: bool = False
    faults: list[str] = []

    def summary(self) -> dict[str, object]:
        is_ok = not self.faults and self.verified and self.tamper_detected
        is_ok = is_ok and 0 < self.sent == len(self.answers) == self.logged
        return {
            "demo": "ok" if is_ok else "failed",
            "exchanges": self.sent,
            "refused": sum(table.is_refusal(answer) for _, answer in self.answers),
            "logged": self.logged,
            "verified": self.verified,
            "tamper_detected": self.tamper_detected,
        }


async def ask_all(stand: Stand, persons: Mapping[str, str], sources: Sources, told: Told) -> None:
    """Send every request of the story, one after the other, and print what came of each."""
    async with AsyncExitStack() as stack:
        clients = {}
        for kbo in ASKING:
            client = open_client(
                stand.identity(kbo), host="127.0.0.1", port=stand.port, uri=ROUTER_URI
            )
            clients[kbo] = await stack.enter_async_context(client)
        for line in table.head():
            show(line)
        for chapter in chapters(persons, _of_fund(stand.folder / "persons.csv")):
            await _ask_chapter(chapter, clients, sources, told)


async def _ask_chapter(
    chapter: Chapter, clients: Mapping[str, Client], sources: Sources, told: Told
) -> None:
    show(f"\n{bold(chapter.title)}\n{chapter.text}")
    for step in chapter.steps:
        told.sent += 1
        begun_at = trio.current_time()
        answer: Answer | None = None
        try:
            answer = await clients[step.who].ask(step.request, deadline_s=10)
        except SdkError as error:
            faults = [f"{type(error).__name__}: {error}"]
        else:
            told.answers.append((step, answer))
            faults = list(faults_of(step, answer, trio.current_time() - begun_at, sources))
        told.faults += [f"exchange {told.sent}: {fault}" for fault in faults]
        for line in table.row(told.sent, step, answer, faults):
            show(line)


def faults_of(step: Step, answer: Answer, took_s: float, sources: Sources) -> Iterator[str]:
    """Yield what is not as the step says."""
    if answer.code != step.expected:
        yield f"{table.name_of(answer.code)} instead of {step.expected.name}"
    asked = tuple(recipient.kbo for recipient in answer.recipients)
    if sorted(asked) != sorted(step.went_to):
        yield f"went to {asked or 'nobody'} instead of {step.went_to or 'nobody'}"
    reached = {kbo for exchange, kbo in sources.delivered if exchange == answer.exchange}
    if reached != set(step.went_to) - {DOWN}:
        yield f"reached {sorted(reached) or 'nobody'}"
    person = step.delivered or step.request.person
    if any(sources.delivered[answer.exchange, kbo] != person for kbo in reached):
        yield "a source was asked for another person"
    if len(reached) == 1 and step.expected is Code.ANSWERED_WITH_DATA:
        (kbo,) = reached
        if answer.payload != payload(kbo, step.request.service):
            yield "the answer is not what the source answered"
    if not step.detail.items() <= answer.detail.items():
        yield f"the detail {' and '.join(step.detail)} is missing or another"
    if took_s > step.within_s:
        yield f"took {took_s:.1f} s, {step.within_s} s at most were expected"


def _of_fund(csv: Path) -> str:
    """Return an active person with an open line of sector 11 for every type, in capacity 1."""
    active = set()
    with csv.open(encoding="ascii") as lines:
        for line in lines:
            insz, status, _, _, sector, kind, capacity, _, _, end, _ = f"{line},,,,,,,,,,".split(
                ",", 11
            )[:11]
            if status == "active":
                active.add(insz)
            if insz in active and (sector, kind, capacity, end) == ("11", "", "1", ""):
                return insz
    raise StandError("no person has a line of sector 11")
