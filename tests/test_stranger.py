"""A client and a source that know the document alone, against the router as it is run."""

import ast
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from contrib.stand import ROUTER_URI, free_ports
from ksz_router.codes import MEANINGS, Code
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, parts
from tests.integration.stands import (
    CENTRE,
    PERSONS,
    RVA,
    STRANGER,
    UNEMPLOYMENT,
    USER,
    Source,
    Town,
    on_trio,
    providing,
    town,
    until,
)  # fmt: skip
from tests.test_tidy import imports
from tests.test_wire_vectors import FOLDER, INVALID, VALID

FILE = Path(__file__).parent / "stranger.py"
BYTES = FILE.with_name("stranger_bytes.py")
ALONE = ("-E", "-s", "-S")
"""No environment and no installed packages: neither the router nor what it needs is there."""

T = TypeVar("T")
PORT, RECIPIENT_PORT = free_ports(2)
RECIPIENT = "0999013688"
SUBMITTING = {"service": "A036", "version": 1}
WINDOW = 4
ASKING = {
    "service": UNEMPLOYMENT[0], "version": UNEMPLOYMENT[1], "user": USER, "sector": 17, "type": 1,
    "capacity": 2, "person": PERSONS["answered"],
}  # fmt: skip
FURTHER = PERSONS["bis"]


class Stranger:
    """The program in a process of its own, isolated; ``said`` is what it printed so far."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, *ALONE, str(FILE), *map(str, words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/")
        assert self.process.stdout is not None
        self.lines = self.process.stdout
        self.said: list[dict[str, Any]] = []

    def until(self, step: str) -> dict[str, Any]:
        """Read on to a step; it is a failure if the program stops before it."""
        for line in self.lines:
            self.said.append(json.loads(line))
            if self.said[-1]["step"] == step:
                return self.said[-1]
        raise AssertionError(f"no {step}: {self.said[-3:]}")

    def rest(self) -> dict[str, dict[str, Any]]:
        """Read to the end; the steps by their name, the last of each."""
        self.said += [json.loads(line) for line in self.lines]
        assert self.process.wait(30) == 0, self.said
        assert self.said[0] == {"step": "start", "foreign": []}, "none of ours can be imported"
        return {said["step"]: said for said in self.said}

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.lines.close()


def files(pki: Path, kbo: str) -> list[object]:
    """The words that name a certificate of a test PKI."""
    return [
        "--certificate", pki / f"{kbo}.crt", "--key", pki / f"{kbo}.key",
        "--authorities", pki / "authorities.pem", "--router-uri", ROUTER_URI,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    windows = {"connection": WINDOW}
    folder = tmp_path_factory.mktemp("stranger") / "stand"
    endpoints = {RVA: PORT, RECIPIENT: RECIPIENT_PORT}
    institutions = [RVA, CENTRE, STRANGER, RECIPIENT]
    with town(
        folder, endpoints=endpoints, institutions=institutions, options={"windows": windows}
    ) as made:
        made.start()
        yield made


@pytest.fixture
def source(stand: Town) -> Iterator[Stranger]:
    """The stranger as the source of what it asks itself."""
    words = ("--port", PORT, "--application", "00901234567", "--further", json.dumps([FURTHER]))
    running = Stranger("supply", *files(stand.folder / "tls", RVA), *words)
    try:
        running.until("listening")
        yield running
    finally:
        running.close()


@pytest.fixture
def recipient(stand: Town) -> Iterator[Stranger]:
    """The stranger as the recipient of what it submits itself."""
    words = ("--port", RECIPIENT_PORT, "--application", "00901234567", "--takes", "A036")
    running = Stranger("supply", *files(stand.folder / "tls", RECIPIENT), *words)
    try:
        running.until("listening")
        yield running
    finally:
        running.close()


@pytest.fixture
def asker(stand: Town) -> Iterator[list[Stranger]]:
    """Holds a requester, so that it ends with the test."""
    running: list[Stranger] = []
    yield running
    for one in running:
        one.close()


def asking(stand: Town, *words: object, kbo: str = CENTRE) -> Stranger:
    """The stranger as a requester."""
    return Stranger(
        "ask", *files(stand.folder / "tls", kbo), "--port", stand.port,
        "--asking", json.dumps(ASKING), "--refused", '{"capacity": 6}',
        "--submitting", json.dumps(SUBMITTING), *words,
    )  # fmt: skip


def test_a_stranger_on_both_sides_of_the_router_has_a_whole_conversation(
    stand: Town, source: Stranger, asker: list[Stranger]
) -> None:
    """Greeting, test connection, consultation, many at once, a refusal, pings, a Bye."""
    asker.append(asking(stand))
    said = asker[0].rest()

    assert said["hello"]["window"] == WINDOW
    assert said["test"]["seen"]["institution"] == CENTRE
    assert said["test"]["seen"]["tls"] == "TLSv1.3"
    consulted = said["consult"]
    assert (consulted["code"], consulted["status"]) == (Code.ANSWERED_WITH_DATA, "DATA_FOUND")
    assert consulted["payload"].endswith("; one question")
    assert consulted["persons"] == [FURTHER]
    assert consulted["recipients"] == [[RVA, Code.ANSWERED_WITH_DATA, "OK"]]
    assert said["pipeline"] == {
        "step": "pipeline", "answers": 20, "codes": [Code.ANSWERED_WITH_DATA],
        "most_in_flight": WINDOW, "matched": True,
    }  # fmt: skip
    refused = said["refuse"]
    assert refused["code"] == Code.CAPACITY_NOT_GRANTED
    assert refused["action"] == MEANINGS[Code.CAPACITY_NOT_GRANTED].action
    assert said["ping"]["pong"] == (1 << 64) - 1
    delivered = source.until("delivered")
    assert (delivered["person"], delivered["requester"]) == (PERSONS["answered"], CENTRE)
    assert delivered["exchange"] == consulted["exchange"]
    assert {said["step"] for said in source.said} >= {"greeted", "ping"}
    stand.verify_log()


def test_a_stranger_is_answered_once_for_each_item_of_its_envelope(
    stand: Town, source: Stranger, asker: list[Stranger]
) -> None:
    """What is no item, what is refused, what is answered: none of them hurts another."""
    asker.append(asking(stand, "--steps", "hello,envelope,bye"))
    said = asker[0].rest()["envelope"]
    malformed, refused, answered = said["answers"]

    assert (malformed["code"], malformed["detail"]) == (Code.FIELD_MALFORMED, {"field": "service"})
    assert refused["code"] == Code.SERVICE_UNKNOWN
    assert answered["code"] == Code.ANSWERED_WITH_DATA
    assert answered["payload"].endswith("; enclosed")
    assert said["exchanges"] == len(said["answers"]), "an exchange id each"
    delivered = source.until("delivered")
    assert (delivered["exchange"], delivered["question"]) == (answered["exchange"], "enclosed")
    source.process.send_signal(signal.SIGTERM)
    source.rest()
    assert sum(said["step"] == "delivered" for said in source.said) == 1


def test_a_stranger_that_lost_its_connection_learns_what_became_of_its_submission(
    stand: Town, recipient: Stranger, asker: list[Stranger]
) -> None:
    """Under way, then the first outcome, as often as it asks; other content is refused."""
    asker.append(asking(stand, "--steps", "hello,submit,reuse,bye"))
    said = asker[0].rest()
    submitted, reused = said["submit"], said["reuse"]
    under_way, first, again = (submitted[name] for name in ("under_way", "first", "again"))

    assert under_way["code"] == Code.SUBMISSION_OPEN
    assert submitted["freed"] == Code.ANSWERED_WITH_DATA
    assert first["code"] == again["code"] == Code.ANSWERED_WITH_DATA
    assert first["exchange"] == again["exchange"]
    assert first["payload"] == again["payload"] == ""
    assert first["recipients"] == again["recipients"] != []
    assert first["detail"]["payloadDigest"] == submitted["digest"]
    assert again["detail"]["payloadDigest"] == submitted["digest"]
    own = {first["detail"]["retry"], again["detail"]["retry"], under_way["exchange"]}
    assert len(own | {first["exchange"]}) == 4, "each retry is recorded under an id of its own"
    assert (reused["code"], reused["detail"]) == (Code.TICKET_REUSED, {})

    recipient.process.send_signal(signal.SIGTERM)
    recipient.rest()
    held = [s for s in recipient.said if s.get("question") == "hold this"]
    assert [(s["exchange"], s["repeat"]) for s in held] == [(first["exchange"], False)]
    assert all(s.get("question") != "another decision" for s in recipient.said)


def test_a_stranger_that_supplies_does_not_act_twice_on_a_repeat(
    stand: Town, recipient: Stranger, asker: list[Stranger]
) -> None:
    """It acted and broke off; the retry comes as a repeat and gets the reply that was due."""
    asker.append(asking(stand, "--steps", "hello,unknown,bye"))
    said = asker[0].rest()["unknown"]
    lost, answer = said["lost"], said["answer"]

    assert lost["code"] == Code.SOURCE_CONNECTION_LOST
    assert answer["code"] == Code.ANSWERED_WITH_DATA
    assert answer["payload"] == "taken: break off"
    assert answer["exchange"] == lost["exchange"] != answer["detail"]["retry"]

    recipient.process.send_signal(signal.SIGTERM)
    recipient.rest()
    delivered = [s for s in recipient.said if s["step"] == "delivered"]
    assert [(s["exchange"], s["repeat"]) for s in delivered] == [
        (lost["exchange"], False), (lost["exchange"], True),
    ]  # fmt: skip
    assert sum(s["step"] == "acted" for s in recipient.said) == 1


def test_a_stranger_beyond_its_window_is_told_the_bound(stand: Town, asker: list[Stranger]) -> None:
    """Nobody answers as the source, so the window stays full: refusals, and one notice."""
    asker.append(asking(stand, "--steps", "hello,overrun,bye"))
    over = asker[0].rest()["overrun"]

    assert (over["answers"], over["refused"]) == (WINDOW + 3, 3)
    assert [(t["code"], t["limit"]) for t in over["throttles"]] == [
        (Code.CONNECTION_WINDOW_FULL, WINDOW)
    ]
    assert over["first"]["detail"] == {"limit": str(WINDOW)}


def test_a_stranger_that_nobody_registered_is_told_so_at_each_request(
    stand: Town, asker: list[Stranger]
) -> None:
    """It may greet, so that the cause can be seen."""
    asker.append(asking(stand, "--steps", "hello,refuse,bye", kbo=STRANGER))
    refused = asker[0].rest()["refuse"]

    assert refused["code"] == Code.CERTIFICATE_NOT_REGISTERED


def test_a_stranger_that_supplies_leaves_in_order(
    stand: Town, source: Stranger, asker: list[Stranger]
) -> None:
    """Its Drain and Bye end the router's connection in peace, and no breaker opens."""
    asker.append(asking(stand, "--steps", "hello,consult,bye"))
    assert asker[0].rest()["consult"]["code"] == Code.ANSWERED_WITH_DATA
    ended = len(stand.events("source_ended"))
    source.process.send_signal(signal.SIGTERM)
    assert "done" in source.rest()

    trio.run(until, lambda: len(stand.events("source_ended")) > ended)
    assert stand.events("source_ended")[-1]["code"] == "CLOSED_IN_PEACE"


@on_trio
async def test_a_stranger_that_keeps_silent_is_pinged_and_answers(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The router's clock jumps, so nobody waits half a minute."""
    ground = Ground(tmp_path_factory.mktemp("stranger-ground"))
    async with parts(ground) as p:
        port = p.listener.getsockname()[1]
        words = ("--port", port, "--steps", "hello,pinged,ping,bye")
        asker = Stranger("ask", *files(ground.pki, CENTRE), *words)
        try:
            await turning(p, lambda: asker.until("silent"))
            p.pass_time(31)
            p.housekeeping.tick()
            said = await turning(p, asker.rest)
        finally:
            asker.close()
        assert said["pinged"]["number"] == 1
        assert said["ping"]["pong"] == (1 << 64) - 1
    ground.close()


async def turning(p: Parts, wait: Callable[[], T]) -> T:
    """Wait for the stranger while the worker takes its turns."""
    found: list[T] = []

    async def wait_outside() -> None:
        found.append(await trio.to_thread.run_sync(wait))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_outside)
        with trio.fail_after(30):
            while not found:
                p.turn()
                await trio.lowlevel.checkpoint()
    return found[0]


@on_trio
async def test_a_stranger_in_flight_while_the_router_goes_is_answered(tmp_path: Path) -> None:
    """A Drain, a refusal of what is new, the answer that was open, and a Bye."""
    with town(tmp_path / "stand", endpoints={RVA: PORT}) as stand:
        stand.start()
        handler = Source(is_open=False)
        async with providing(stand, PORT, handler):
            asker = asking(stand, "--steps", "hello,drained")
            try:
                await until(lambda: handler.asked)
                stand.signal(signal.SIGTERM)
                await trio.to_thread.run_sync(asker.until, "draining")
                handler.gate.set()
                said = (await trio.to_thread.run_sync(asker.rest))["drained"]
            finally:
                asker.close()
        assert await trio.to_thread.run_sync(stand.ended) == 0
    assert sorted(said["codes"].values()) == [Code.ROUTER_DRAINING, Code.ANSWERED_WITH_DATA]
    assert said["codes"][str(said["late"])] == Code.ROUTER_DRAINING
    assert (said["bye"], said["seconds"]) == (Code.CLOSED_IN_PEACE, 30)


def test_what_the_stranger_reads_in_the_vectors_is_what_they_say() -> None:
    """Its own reader takes every valid frame and refuses every invalid one, with the same code."""
    command = [sys.executable, *ALONE, str(BYTES), str(FOLDER / "valid.json")]
    read = subprocess.run(
        [*command, str(FOLDER / "invalid.json")], capture_output=True, check=True, cwd="/"
    )
    found = [json.loads(line) for line in read.stdout.splitlines()]

    assert len(found) == len(VALID) + len(INVALID)
    for row, valid in zip(found, VALID, strict=False):
        expected = dict(valid["is"])
        if "again" not in row:  # requests in an envelope that are none: it cannot write them
            assert row["kind"] == "Envelope"
            del row["fields"]["requests"], expected["requests"]
        assert {"kind": row["kind"]} | row["fields"] == expected, row["name"]
        if valid["canonical"] and "again" in row:
            assert row["again"] == valid["hex"], row["name"]
    for row, invalid in zip(found[len(VALID) :], INVALID, strict=True):
        assert row.get("code") == invalid["code"], row["name"]


@pytest.mark.parametrize("file", [FILE, BYTES], ids=lambda file: file.name)
def test_the_stranger_imports_the_standard_library_alone(file: Path) -> None:
    """And its other half, in the one way in which it is run."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    allowed = sys.stdlib_module_names | ({"stranger_bytes"} if file == FILE else set())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = {name.partition(".")[0] for name in imports(tree)}
    assert names <= allowed, names - allowed
