"""A client that knows the document of the directory's services and nothing of ours."""

import ast
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from contrib.stand import ROUTER_URI
from ksz_router.codes import Code
from ksz_router.directory.synthesise import landmarks
from ksz_router.messages import Delivery, Outcome
from ksz_router.sdk import Provider, Supply
from tests.integration.stands import CENTRE, USER, Town, town
from tests.stranger_bytes import ALPN, FRAME_MAX, Reader, frame_of

pytestmark = pytest.mark.xdist_group("integration-directory")

FILE = Path(__file__).parents[1] / "stranger_keeper.py"
NEWCOMER = landmarks(1)["not_integrated"]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("keeper") / "stand"
    with town(folder, endpoints={}, institutions=[CENTRE], serves_directory=True) as made:
        made.start()
        yield made


def test_a_stranger_keeps_its_lines_by_the_document_alone(stand: Town) -> None:
    """Inscribes, adjusts, splits, sees and removes, and is told what it did wrong."""
    identity = stand.identity(CENTRE)
    asking = {"user": USER, "sector": 17, "type": 1, "capacity": 2, "person": NEWCOMER}
    done = subprocess.run(
        [
            sys.executable, "-S", "-E", "-s", FILE, "--port", str(stand.port),
            "--certificate", identity.certificate, "--key", identity.key,
            "--authorities", identity.authorities, "--router-uri", ROUTER_URI,
            "--asking", json.dumps(asking),
        ],
        capture_output=True, text=True, check=True, timeout=30, cwd="/",
    )  # fmt: skip
    said: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        step = json.loads(line)
        said[step.pop("step")] = step

    def lines(step: str) -> list[tuple[int, ...]]:
        names = ("sector", "type", "capacity", "phase", "begin", "end")
        return [tuple(line[name] for name in names) for line in said[step]["lines"]]

    assert lines("inscribe") == [(17, 1, 2, 1, 20260301, 99991231)]
    overlap = said["overlap"]
    assert (overlap["reason"], overlap["source"]) == ("OVERLAPS", ["DIR-21"])
    assert (overlap["code"], overlap["version"]) == (Code.ANSWERED_WITHOUT_DATA, 0)
    assert lines("adjust") == [(17, 1, 2, 3, 20260201, 20261231)]
    assert said["others"]["code"] in (Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITHOUT_DATA)
    assert 17 not in {line["sector"] for line in said["others"]["lines"]}
    assert said["early"]["code"] == Code.PERIOD_NOT_COVERED
    halves = [(17, 1, 2, 3, 20260201, 20260531), (17, 1, 2, 3, 20260701, 20261231)]
    assert lines("split") == lines("lines") == halves
    assert said["misspelt"]["source"] == ["DIR-51"]
    assert (said["remove"]["code"], said["remove"]["lines"]) == (Code.ANSWERED_WITH_DATA, [])
    assert said["nothing"]["code"] == Code.ANSWERED_WITHOUT_DATA
    made = [said[step]["version"] for step in ("inscribe", "adjust", "split", "remove")]
    assert made == list(range(made[0], made[0] + 4))
    assert said["lines"]["version"] == made[2]


def said_to(stand: Town, name: str, port: int, *deadlines_ms: int) -> list[str]:
    """Dial as the router does, with a certificate, and deliver; what is said to the last of it."""
    tls = stand.folder / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_cert_chain(tls / f"{name}.crt", tls / f"{name}.key")
    context.load_verify_locations(tls / "authorities.pem")
    context.set_alpn_protocols([ALPN])
    hello = {"versions": [1], "speaker": 2, "agent": "router", "frame_bytes_max": FRAME_MAX}
    exchange = (time.time_ns() // 1_000_000).to_bytes(6, "big") + bytes(10)
    words = {
        "exchange": exchange, "service": "directory.lines", "version": 1, "requester": CENTRE,
        "sector": 17, "type": 1, "capacity": 2, "person": NEWCOMER, "begin": 20260101,
    }  # fmt: skip
    said = frame_of("Hello", hello)
    for number, deadline_ms in enumerate(deadlines_ms, start=1):
        said += frame_of("Delivery", {"id": number, "deadline_ms": deadline_ms, **words})
    last = f"Reply {len(deadlines_ms)}"
    reader, heard = Reader("back"), list[str]()
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with contextlib.closing(context.wrap_socket(plain)) as dialled, contextlib.suppress(OSError):
        dialled.sendall(said)
        while last not in heard and (data := dialled.recv(65_536)):
            heard += [
                f"{kind} {fields.get('id', '')}".strip() for kind, fields in reader.feed(data)
            ]
    return heard


def test_nobody_but_the_router_is_listened_to_by_the_directory_program(stand: Town) -> None:
    """A certified institution that dials it would pass by the control; it is told to go."""
    port = tomllib.loads(stand.config.read_text("utf-8"))["directory"]["port"]
    assert said_to(stand, "router", port, 5_000) == ["Welcome", "Reply 1"]
    for name in (CENTRE, "directory"):
        assert said_to(stand, name, port, 5_000) == ["Bye"]


def test_a_handler_that_was_cancelled_at_its_deadline_says_nothing_of_it(stand: Town) -> None:
    """It may have acted. *Failed*, a moment before the router stops waiting, would be final."""
    heard: list[str] = []

    async def main() -> None:
        is_cancelled = trio.Event()

        async def handle(delivery: Delivery) -> Supply:
            if delivery.id == 1:
                try:
                    await trio.sleep_forever()
                finally:
                    is_cancelled.set()
            await is_cancelled.wait()
            return Supply(Outcome.NO_DATA)

        provider = Provider(
            stand.identity("directory"),
            router_uris={ROUTER_URI},
            services={("directory.lines", 1): handle},
        )
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(provider.serve, host="127.0.0.1", port=0))
            heard.extend(await trio.to_thread.run_sync(said_to, stand, "router", port, 50, 60_000))
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert heard == ["Welcome", "Reply 2"]


def test_the_keeper_imports_nothing_of_ours() -> None:
    """But the other half of the stranger, whose test holds the same of it."""
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    modules = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert modules <= sys.stdlib_module_names | {"stranger", "stranger_bytes"}
