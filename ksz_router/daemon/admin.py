"""The operators' Unix socket: one JSON line asks, one answers. Its file mode is the permission."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
import trio

from ksz_router.daemon.control import Report
from ksz_router.daemon.reload import Part
from ksz_router.daemon.supervisor import Supervisor

_LINE_BYTES_MAX = 1_048_576
_SECONDS_MAX = 60.0
"""A reload verifies a whole rulebook and waits for every worker."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator wants."""

    verb: Literal["status", "reload"]


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker, as the supervisor sees it."""

    index: int
    pid: int
    is_ready: bool
    restarts: int
    why_not: str
    """Why it is not ready; empty where it is."""
    report: Report | None


class ProgramStatus(msgspec.Struct, frozen=True):
    """A program beside the workers, as the supervisor sees it."""

    name: str
    pid: int
    restarts: int
    state: str
    """How far it is, in words; empty while it starts."""


class Status(msgspec.Struct, frozen=True):
    """How the router is. ``reload`` says by part what one came to, where one was asked for."""

    node: str
    is_ready: bool
    is_stopping: bool
    generation: str
    workers: list[WorkerStatus]
    programs: list[ProgramStatus]
    reload: dict[str, Part] = {}

    @property
    def failed(self) -> dict[str, str]:
        """What the reload could not do, and why; empty where all went well."""
        failed = {name: part.reason for name, part in self.reload.items() if part.reason}
        for name, part in self.reload.items():
            for index, why in part.replaced.items():
                failed[f"{name} in worker {index}"] = why
        return failed


_answer = msgspec.json.Decoder(Status)
_question = msgspec.json.Decoder(Question)


def listen(path: Path) -> socket.socket:
    """Make the socket; it takes the place of one left by an earlier run.

    Raises:
        OSError: it cannot be made there, or a router answers there already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if _answers(path):
        raise OSError(errno.EADDRINUSE, f"{path}: another router answers here")
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o117)
    try:
        with _address(path) as address:
            sock.bind(address)
    finally:
        os.umask(old_mask)
    sock.listen(8)
    sock.setblocking(False)
    return sock


async def listen_in_turn(path: Path, seconds: float) -> socket.socket:
    """Make the socket, once a router that is stopping has left it; errors as :func:`listen`."""
    with trio.move_on_after(seconds):
        while await _is_stopping(path):  # noqa: ASYNC110 - another process's end gives no event
            await trio.sleep(0.05)
    return listen(path)


async def _is_stopping(path: Path) -> bool:
    try:
        return (await ask(path, "status")).is_stopping
    except (OSError, msgspec.MsgspecError, trio.TooSlowError):
        return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            with _address(path) as address:
                sock.connect(address)
        except OSError:
            return False
    return True


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give a name of the socket that fits into an address (107 bytes), however deep it lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


async def serve(supervisor: Supervisor, listener: socket.socket) -> None:
    """Answer operators until cancelled."""

    async def answer(stream: trio.SocketStream) -> None:
        with trio.move_on_after(_SECONDS_MAX):
            try:
                line = await _line(stream)
                reply = await _reply(supervisor, line)
                await stream.send_all(reply + b"\n")
            except trio.BrokenResourceError:
                pass  # the operator did not wait
        await stream.aclose()

    await trio.serve_listeners(
        answer, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
    )


async def ask(path: Path, verb: Literal["status", "reload"]) -> Status:
    """Ask a running router.

    Raises:
        OSError: nobody listens there.
        msgspec.MsgspecError: who listens is not a router, or refused the question.
    """
    with _address(path) as address:
        stream = await trio.open_unix_socket(address)
    async with stream:
        await stream.send_all(msgspec.json.encode(Question(verb)) + b"\n")
        with trio.fail_after(_SECONDS_MAX):
            return _answer.decode(await _line(stream))


async def _line(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n") and len(data) < _LINE_BYTES_MAX:
        chunk = await stream.receive_some()
        if not chunk:
            break
        data += chunk
    return bytes(data)


def question_of(line: bytes) -> Question | str:
    """Return what a line asks, or why it asks nothing."""
    try:
        return _question.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return str(error)


async def _reply(supervisor: Supervisor, line: bytes) -> bytes:
    question = question_of(line)
    if isinstance(question, str):
        return msgspec.json.encode({"error": question})
    parts = await supervisor.reload() if question.verb == "reload" else {}
    await supervisor.ask_all()
    return msgspec.json.encode(_status(supervisor, parts))


def _status(supervisor: Supervisor, parts: dict[str, Part]) -> Status:
    workers = [
        WorkerStatus(
            index=worker.index,
            pid=worker.process.pid if worker.process is not None else 0,
            is_ready=worker.is_ready,
            restarts=worker.restarts,
            why_not=worker.why_not,
            report=worker.report,
        )
        for worker in supervisor.workers
    ]
    programs = [
        ProgramStatus(
            name=companion.name,
            pid=companion.process.pid if companion.process is not None else 0,
            restarts=companion.restarts,
            state=companion.state,
        )
        for companion in supervisor.companions
    ]
    return Status(
        node=supervisor.force.settings.node.name,
        is_ready=not supervisor.is_stopping and all(worker.is_ready for worker in workers),
        is_stopping=supervisor.is_stopping,
        generation=supervisor.force.generation,
        workers=workers,
        programs=programs,
        reload=parts,
    )
