"""``ksz-router send``: what people and programs read, and how it ends. Against a real router."""

import io
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contrib.stand import ROUTER_URI, Stand, free_ports
from ksz_router.cli import NOT_IN_ORDER, OK, USAGE, main, send
from ksz_router.codes import MEANINGS, Action, Code
from ksz_router.directory.synthesise import landmarks
from ksz_router.messages import Answer, RecipientStatus, Request

CENTRE, RVA = "0999016460", "0999010126"
USER = "85073099734"
TEST = ["--service", "TestConnectionService"]
CONSULT = [
    *("--service", "UnemploymentData", "--version", "3", "--sector", "17", "--type", "1"),
    *("--capacity", "2", "--user", "-", "--person", "-"),
]

Send = Callable[..., int]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A router whose only source does not listen."""
    endpoints = {RVA: free_ports(1)[0]}
    folder = tmp_path_factory.mktemp("stand")
    stand = Stand.make(folder, institutions=[CENTRE], endpoints=endpoints)
    try:
        stand.start()
        yield stand
    finally:
        if stand.process is not None:
            stand.stop()


@pytest.fixture
def run(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Send to the stand: words of the command line, standard input, options that differ."""

    def run(*words: str, stdin: str = "", **options: object) -> int:
        identity = stand.identity(CENTRE)
        usual = {
            "port": stand.port,
            "router_uri": ROUTER_URI,
            "certificate": identity.certificate,
            "key": identity.key,
            "authorities": identity.authorities,
        }
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        pairs = (usual | options).items()
        return main(["send", *words, *(f"--{k.replace('_', '-')}={v}" for k, v in pairs)])

    return run


def test_an_answer_is_printed_for_people(run: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """Code, stage, exchange id, where it went, times and payload; and the exit code is 0."""
    assert run(*TEST) == OK
    lines = capsys.readouterr().out.splitlines()
    read = dict(line.split(maxsplit=1) for line in lines if not line.startswith("went to"))
    assert read["code"] == "10001 ANSWERED_WITH_DATA"
    assert read["stage"] == "answered"
    assert read["official"] == "MSG00000  DATA_FOUND"
    assert read["next"] == "nothing"
    assert uuid.UUID(read["exchange"]).version == 7
    assert re.fullmatch(r"[\d.]+ ms in the router, 0.00 ms at the source", read["took"])
    assert json.loads(read["payload"])["institution"] == CENTRE
    assert "went to      nobody" in lines


def test_a_program_reads_one_object(run: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json, all of it is one JSON object, the ticket that was given too."""
    assert run(*TEST, "--json", "--ticket=T-1") == OK
    read = json.loads(capsys.readouterr().out)
    assert (read["code"], read["name"], read["ticket"]) == (10001, "ANSWERED_WITH_DATA", "T-1")
    assert json.loads(read["payload"])["institution"] == CENTRE


def test_a_refusal_says_what_to_do(run: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """User and person come from standard input; a refusal ends with 1 and names the way out."""
    person = landmarks(1)["replaced"]
    assert run(*CONSULT, stdin=f"{USER}\n{person}\n") == NOT_IN_ORDER
    printed = capsys.readouterr().out
    assert "code         6002 PERSON_REPLACED\n" in printed
    assert "official     MSG00006  NO_RESULT\n" in printed
    assert "next         correct the request, then send it again\n" in printed
    assert f"detail       newSSIN={landmarks(1)['replacement']}\n" in printed
    assert person not in printed


def test_a_source_that_is_down_is_named(run: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """What failed after the control shows where it went; the exit code is 1."""
    assert run(*CONSULT, stdin=f"{USER}\n{landmarks(1)['answered']}\n") == NOT_IN_ORDER
    printed = capsys.readouterr().out
    assert f"went to      {RVA}  SOURCE_UNREACHABLE\n" in printed
    assert "next         try again later: the source has a problem" in printed


def test_days_and_payload_files_travel(
    run: Send, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A period is judged by the router; a payload larger than the service's bound too."""
    file = tmp_path / "payload"
    file.write_bytes(bytes(100_000))
    stdin = f"{USER}\n{landmarks(1)['answered']}\n"
    period = ("--begin=2026-02-01", "--end=2026-01-31")
    assert run(*CONSULT, *period, stdin=stdin) == NOT_IN_ORDER
    assert "PERIOD_NOT_SANE" in capsys.readouterr().out
    assert run(*CONSULT, f"--payload=@{file}", stdin=stdin) == NOT_IN_ORDER
    assert "PAYLOAD_TOO_LARGE" in capsys.readouterr().out
    file.write_bytes(bytes(2_000_000))
    assert run(*CONSULT, f"--payload=@{file}", stdin=stdin) == NOT_IN_ORDER
    assert capsys.readouterr().err.startswith("ksz-router: --payload: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 1, "deadline": 0.5}, "127.0.0.1:1: no "),
        ({"router_uri": "urn:example:another"}, "certificate"),
    ],
)
def test_no_answer_is_one_clear_line(
    run: Send, capsys: pytest.CaptureFixture[str], options: dict[str, object], words: str
) -> None:
    """A router that is not there, or is another: one line on standard error, exit code 1."""
    assert run(*TEST, **options) == NOT_IN_ORDER
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert words in printed.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--deadline=61", "--deadline"),
        ("--begin=2026-02-30", "--begin: a day such as"),
        ("--person=-", "--person -: standard input has no line"),
        ("--payload=@nowhere", "--payload: nowhere: No such file"),
        ("--certificate=nowhere", "nowhere: no such file"),
        ("--version=65536", "--version"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Exit code 2 and the option that is wrong."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.chdir(tmp_path)
    files = [f"--{name}={os.devnull}" for name in ("certificate", "key", "authorities")]
    try:
        code = main(["send", "--router-uri=urn:x", *TEST, *files, more])
    except SystemExit as end:  # argparse's own
        code = int(end.code or 0)
    assert code == USAGE
    assert said in capsys.readouterr().err


def test_text_that_is_not_utf_8_is_not_sent(run: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes of a command line that no text holds end in one line, without a trace."""
    assert run(*TEST, "--means=\udcff") == NOT_IN_ORDER
    assert "not sent" in capsys.readouterr().err


def answer(payload: bytes, **fields: object) -> Answer:
    values: dict[str, object] = {
        "id": 1, "exchange": b"", "code": 9999, "stage": 99, "official": "", "status": "NEW",
        "action": 77, "generation": "",
    }  # fmt: skip
    return Answer(**(values | fields), payload=payload)  # type: ignore[arg-type]


def test_what_a_later_router_says_is_printed_all_the_same() -> None:
    """An unknown code, stage and action are shown as numbers, and no exchange id as none."""
    request = Request(id=1, service="x", version=1, ticket="T")
    recipients = (RecipientStatus(RVA, 9999, "E7"),)
    lines = list(send._lines(answer(b"\x00\xff", recipients=recipients), request))
    assert ("code", "9999 unknown to this release") in lines
    assert ("exchange", "none: turned away before the control") in lines
    assert ("went to", f"{RVA}  unknown to this release (E7)") in lines
    assert ("payload", "2 bytes") in lines


@pytest.mark.parametrize("payload", [b"\x1b[2J", b"\xff", "\u202e".encode()])
def test_a_payload_cannot_play_with_the_terminal(payload: bytes) -> None:
    """Escape sequences and bytes that are no text are counted, not printed."""
    assert send._printable(payload) is None


def test_there_are_words_for_every_action() -> None:
    """What to do next is said in words, whatever the code."""
    assert set(send._NEXT) == set(Action)
    assert {meaning.action for meaning in MEANINGS.values()} <= set(send._NEXT)
    assert send._name(Code.NO_GRANT) == "NO_GRANT"
