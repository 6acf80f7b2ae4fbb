"""Laws 1 and 2: one road, and nothing leaves before its entry is durable."""

import ast
import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

import msgspec
import pytest

from ksz_router.codes import Code
from ksz_router.limits import frame_length_bytes
from ksz_router.messages import Answer, Delivery, Outcome
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import Kind, parse
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import scan
from ksz_router.privacylog.slots import file_numbers, file_of
from ksz_router.privacylog.writer import Writer
from ksz_router.wire import Connection, Message
from ksz_router.wire.frames import length_at
from tests.daemon_ground import NOBODY, Ground
from tests.daemon_parts import in_trio, parts
from tests.privacylog_world import crash
from tests.test_tidy import PACKAGE, dotted
from tests.worlds import MUTATIONS_PROGRAM, NIC, PENSIONS, POD_MI, REGISTER, RVA, ask

decode = msgspec.msgpack.Decoder(Message).decode


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


# Law 1: one road.


@functools.cache
def calls() -> dict[str, set[str]]:
    """Last names that are called with arguments, and where; the release of a lock has none."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (node.args or node.keywords):
                name = ast.unparse(node.func).rpartition(".")[2]
                found.setdefault(name, set()).add(dotted(path))
    return found


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("decide", {"daemon.judging", "replay.again"}),  # a replay forwards and answers nothing
        ("forward", {"daemon.exchange"}),
        ("release", {"daemon.exchange"}),
        ("forward_after", {"daemon.exchange", "daemon.mailbox_step"}),
        ("Release", {"daemon.exchange"}),
        ("Delivery", {"daemon.source"}),
        ("Answer", {"daemon.answers"}),
        ("Recorded", {"daemon.recorder"}),
    ],
)
def test_one_place_decides_forwards_and_answers(name: str, modules: set[str]) -> None:
    """Law 1: each step of the road stands in one module, so there is no second road."""
    assert calls()[name] == modules


def test_every_request_that_is_taken_is_decided_on() -> None:
    """Law 1: the one call of ``decide`` hangs on no condition, so no option turns it off."""
    assert hangs_on("decide", "judging") == ("judge", [ast.Assign, ast.For])
    assert hangs_on("judge", "exchange") == ("_judge", [ast.Assign])
    assert hangs_on("self._judge", "exchange") == ("take", [ast.Expr, ast.For])
    assert hangs_on("judge", "mailbox_step") == ("judged", [ast.Assign])


def hangs_on(called: str, module: str) -> tuple[str, list[type[ast.AST]]]:
    """The function that holds the one call of a name, and the statements around the call."""
    tree = ast.parse((PACKAGE / "daemon" / f"{module}.py").read_text(encoding="utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == called
    ]
    above: list[type[ast.AST]] = []
    node = parents[call]
    while not isinstance(node, ast.FunctionDef):
        above.append(type(node))
        node = parents[node]
    return node.name, above


# Law 2: recorded before released.

Event = tuple[str, Any]


class StoryDisk(Disk):
    """Notes what becomes durable when; a flush fails once none is left."""

    def __init__(self, story: list[Event]) -> None:
        self.story = story
        self.flushes_left = 1_000_000

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self.story.append(("writes", None))
        super().write(descriptor, data, offset)

    def flush(self, descriptor: int) -> None:
        self.flushes_left -= 1
        if self.flushes_left < 0:
            raise OSError(5, os.strerror(5))
        super().flush(descriptor)
        self.story.append(("flushed", None))


class StoryDiskBeside(StoryDisk):
    """Flushes beside its caller, and is never done when it is asked for the first time."""

    def begin_flush(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_asked = False

    def is_flushed(self, wait_s: float) -> bool:  # noqa: ARG002
        is_done, self._is_asked = self._is_asked, True
        if is_done:
            self.flush(self._descriptor)
        return is_done


class StoryWriter(Writer):
    """Notes which entries a commit is about."""

    def begin(self, records: Sequence[bytes], now_ns: int) -> None:
        assert isinstance(self._disk, StoryDisk)
        self._disk.story.append(("commits", [parse(record) for record in records]))
        super().begin(records, now_ns)


class Story(list[Event]):
    """What happened, in one order: commits, writes, flushes, and messages handed to sockets."""

    def listen(self, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Note every message on its way from an engine to its socket: there is no other way."""
        original = Connection.data_to_send

        def noting(connection: Connection) -> bytes:
            data = original(connection)
            rest = data
            while rest:
                end = frame_length_bytes + length_at(rest, 0)[0]
                self.append(("hands over", decode(rest[frame_length_bytes:end])))
                rest = rest[end:]
            return data

        monkeypatch.setattr(Connection, "data_to_send", noting)
        return self

    def released(self) -> list[Delivery | Answer]:
        """Check the order; return what was forwarded and answered after its entry was durable."""
        durable: set[tuple[Kind, bytes | None, int]] = set()
        group: list[tuple[Kind, bytes | None, int]] = []
        is_written = False
        found: list[Delivery | Answer] = []
        for what, more in self:
            if what == "commits":
                group, is_written = [(e.kind, e.exchange, e.code) for e in more], False
            elif what == "writes":
                is_written = True
            elif what == "flushed":
                durable.update(group if is_written else [])
            elif isinstance(more, Delivery):
                assert (Kind.REQUEST, more.exchange, 0) in durable
                found.append(more)
            elif isinstance(more, Answer):
                assert (Kind.OUTCOME, more.exchange, more.code) in durable
                found.append(more)
        return found


@pytest.mark.parametrize("disk", [StoryDisk, StoryDiskBeside])
@in_trio
async def test_no_byte_leaves_before_its_entry_is_on_disk(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, disk: type[StoryDisk]
) -> None:
    """Law 2: deliveries after their request, answers after their outcome, whatever it was."""
    story = Story().listen(monkeypatch)
    async with parts(ground, disk=disk(story), writer=StoryWriter) as p:
        source, caller = p.add_source(RVA), await p.connect()
        register = await p.connect(REGISTER)
        p.add_source(PENSIONS, listens=False)
        p.add_source(NIC)
        caller.ask(ask(id=0))
        await p.until(lambda: source.deliveries)  # from here on a delivery need not wait to leave
        caller.ask(*(ask(id=number) for number in range(1, 20)))
        caller.ask(ask(id=100, person=NOBODY), ask(id=101, ticket=""), ask(id=102, version=9))
        caller.ask(ask(id=103, service="PensionRegister", version=1))
        caller.ask(ask(id=104, service="TestConnectionService", version=1, person=None))
        register.ask(
            ask(id=1, service="MutationsSender", version=1, user=None, capacity=None, sector=None,
                type=None, application=MUTATIONS_PROGRAM, legal_framework="RR:MUTATIONS")
        )  # fmt: skip
        await p.until(lambda: len(source.deliveries) == 21 and p.sources[-1].deliveries)
        for index in range(10):
            source.reply(index, outcome=Outcome(index % 4))
        await p.until(lambda: len(caller.answers) == 15)
        p.pass_time(61)
        await p.until(lambda: len(caller.answers) == 25 and register.answers)

    released = story.released()
    assert sum(isinstance(message, Delivery) for message in released) == 22
    assert sum(isinstance(message, Answer) for message in released) == 26
    assert len({message.code for message in released if isinstance(message, Answer)}) == 9


@pytest.mark.parametrize("flushes", [0, 1])
@in_trio
async def test_after_an_error_of_the_disk_nothing_leaves(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, flushes: int
) -> None:
    """Law 2: the loop raises, the request is not forwarded, the answer not given."""
    story = Story()
    disk = StoryDisk(story)
    async with parts(ground, disk=disk, writer=StoryWriter) as p:
        source, caller = p.add_source(RVA), await p.connect()
        disk.flushes_left = flushes
        story.listen(monkeypatch)
        caller.ask(ask())
        with pytest.raises(PrivacyLogError):
            await p.until(lambda: source.deliveries)
            source.reply()
            await p.until(lambda: caller.answers)
        caller.ask(ask(id=2))
        for _ in range(10):
            with pytest.raises(PrivacyLogError):
                p.writer.commit([b"x"], p.wall_ns())
            with contextlib.suppress(PrivacyLogError):
                p.loop.turn()

    released = story.released()
    assert [type(message) for message in released] == [Delivery] * flushes
    assert caller.answers == []


@in_trio
async def test_whatever_comes_of_a_request_is_recorded(ground: Ground) -> None:
    """Law 2: a pass, a refusal, a failure and a time-out each leave a request and an outcome."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        p.add_source(PENSIONS, listens=False)
        caller.ask(ask(id=1), ask(id=2), ask(id=3, person=NOBODY))
        caller.ask(ask(id=4, service="PensionRegister", version=1))
        await p.until(lambda: len(source.deliveries) == 2 and len(caller.answers) == 2)
        source.reply(0)
        await p.until(lambda: len(caller.answers) == 3)
        p.pass_time(10.01)
        await p.until(lambda: len(caller.answers) == 4)

        kinds = [[entry.kind for entry in p.entries_of(a.exchange)] for a in caller.answers]
        assert kinds == [[Kind.REQUEST, Kind.OUTCOME]] * 4
        assert {
            a.id: [entry.code for entry in p.entries_of(a.exchange)] for a in caller.answers
        } == {
            1: [0, Code.ANSWERED_WITH_DATA],
            2: [0, Code.SOURCE_SILENT],
            3: [Code.PERSON_NOT_INTEGRATED, Code.PERSON_NOT_INTEGRATED],
            4: [0, Code.SOURCE_UNREACHABLE],
        }


@in_trio
async def test_a_late_answer_is_recorded_as_discarded_and_not_given(ground: Ground) -> None:
    """Law 2: after the deadline the requester has its answer; the source's is noted, once."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        p.pass_time(10.01)
        await p.until(lambda: caller.answers)
        source.reply()
        source.reply()
        exchange = source.last.exchange
        await p.until(lambda: len(p.entries_of(exchange)) == 3)
        caller.ask(ask(id=2))
        await p.until(lambda: len(source.deliveries) == 2)

        codes = [entry.code for entry in p.entries_of(exchange)]
        assert codes == [0, Code.SOURCE_SILENT, Code.ANSWER_DISCARDED]
        assert [answer.code for answer in caller.answers] == [Code.SOURCE_SILENT]


@in_trio
async def test_after_a_crash_an_open_exchange_has_an_unknown_outcome(ground: Ground) -> None:
    """Law 2: what was forwarded and not answered when the process died is settled at the start."""
    async with parts(ground) as p:
        source, caller = p.add_source(POD_MI), await p.connect()
        caller.ask(ask(service="A036", version=1))
        await p.until(lambda: source.deliveries)
        crash(p.writer)
        again = Writer.open(
            p.log, slot="w0", node="router-a", keys_folder=ground.keys_folder,
            now_ns=p.wall_ns(), file_bytes=1 << 20,
        )  # fmt: skip
        again.close()

        frames: list[Frame] = []
        for number in file_numbers(p.log / "w0"):
            scan(file_of(p.log / "w0", number), KeyRing(ground.keys_folder), frames.append)
        codes = [parse(record).code for frame in frames for record in frame.records]
        assert codes == [0, Code.OUTCOME_UNKNOWN]


def test_the_story_tells_when_an_answer_came_too_early() -> None:
    """The check itself is not vacuous: each early release is seen."""
    early = Delivery(
        id=1, exchange=b"x", service="s", version=1, requester="r", begin=1, deadline_ms=1
    )
    with pytest.raises(AssertionError):
        Story([("hands over", early)]).released()
