"""The examples of the SDK's document, run for real: two sources and a requester on a router."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import trio

from contrib.examples import source
from contrib.stand import ROUTER_URI, Stand, free_ports
from ksz_router.directory.synthesise import landmarks
from ksz_router.sdk import Delivery

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "contrib" / "examples"
DOCUMENT = ROOT / "docs" / "sdk.md"
CENTRE, RVA, POD_MI = "0999016460", "0999010126", "0999013688"
USER = "85073099734"


class World(NamedTuple):
    """A router that runs, and the example source twice, with two certificates."""

    stand: Stand
    sources: list[subprocess.Popen[str]]


def example(stand: Stand, name: str, kbo: str, port: int) -> list[str]:
    identity = stand.identity(kbo)
    return [
        sys.executable,
        str(EXAMPLES / name),
        f"--certificate={identity.certificate}",
        f"--key={identity.key}",
        f"--authorities={identity.authorities}",
        f"--port={port}",
        f"--router-uri={ROUTER_URI}",
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    ports = dict(zip((RVA, POD_MI), free_ports(2), strict=True))
    folder = tmp_path_factory.mktemp("stand")
    stand = Stand.make(folder, institutions=[CENTRE, RVA, POD_MI], endpoints=ports)
    sources = []
    try:
        for kbo, port in ports.items():
            words = example(stand, "source.py", kbo, port)
            source = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            sources.append(source)
            assert source.stdout is not None
            assert source.stdout.readline() == f"serving on port {port}\n"
        stand.start()
        yield World(stand, sources)
    finally:
        for source in sources:
            source.kill()
            source.communicate()
        if stand.process is not None:
            stand.stop()


def ask(world: World, *persons: str) -> list[str]:
    words = example(world.stand, "requester.py", CENTRE, world.stand.port)
    numbers = "\n".join((USER, *persons))
    done = subprocess.run(
        words, cwd=ROOT, input=numbers, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not any(person in done.stdout + done.stderr for person in persons)
    return done.stdout.splitlines()


def test_the_requester_gets_an_answer_for_each_person_and_submits(world: World) -> None:
    """One is answered by the source, one is refused with what to do; the submission is taken."""
    persons = landmarks(1)
    lines = ask(world, persons["answered"], persons["not_integrated"], persons["no_source"])
    assert re.fullmatch(r"person 1: ANSWERED_WITH_DATA, [1-9]\d* bytes", lines[0])
    assert lines[1:] == [
        "person 2: PERSON_NOT_INTEGRATED: trying again would not help",
        "person 3: NO_SOURCE_KNOWS_THE_PERSON, 0 bytes",
        "submission: ANSWERED_WITH_DATA, 0 bytes",
        lines[0].replace("person 1", "together"),
        "together: PERSON_NOT_INTEGRATED: trying again would not help",
    ]


def test_a_thousand_are_asked_over_one_connection(world: World) -> None:
    """Requests beyond what is in flight at once wait their turn, and none is lost."""
    lines = ask(world, *[landmarks(1)["answered"]] * 1000)
    assert sum("ANSWERED_WITH_DATA" in line for line in lines) == 1003


def test_a_source_that_is_told_to_stop_drains(world: World) -> None:
    """SIGTERM ends the source in order; then the requester learns that the source is down."""
    source = world.sources[0]
    source.send_signal(signal.SIGTERM)
    printed, _ = source.communicate(timeout=10)
    assert (printed, source.returncode) == ("drained\n", 0)
    lines = ask(world, landmarks(1)["answered"])
    assert lines[0] == "person 1: SOURCE_UNREACHABLE: not our fault; try later"
    assert lines[1] == "submission: ANSWERED_WITH_DATA, 0 bytes"


def test_a_submission_that_comes_again_is_not_acted_on_twice() -> None:
    """A repeat of what we have gets the reply that it got; one that never came is taken."""
    delivery = Delivery(
        id=1, exchange=b"1" * 16, service="A036", version=1, requester=CENTRE, begin=20260101,
        deadline_ms=1000,
    )  # fmt: skip
    first = trio.run(source.decision, delivery)
    assert list(source.taken) == [delivery.exchange]
    repeat = msgspec.structs.replace(delivery, id=2, repeat=True)
    assert trio.run(source.decision, repeat) is first
    lost_on_the_way = msgspec.structs.replace(repeat, exchange=b"2" * 16)
    assert trio.run(source.decision, lost_on_the_way) is not first
    assert list(source.taken) == [delivery.exchange, lost_on_the_way.exchange]


def test_what_the_document_shows_is_what_runs() -> None:
    """Every Python block of the document stands in an example, as it is."""
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    sources = "".join(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py"))
    assert len(blocks) >= 4
    for block in blocks:
        assert block in sources, f"not in an example:\n{block}"
