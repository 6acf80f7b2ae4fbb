"""``ksz-router send``: ask a router one thing, as a back-end does, and print the answer.

It goes the road of every request: mutual TLS, the control, the privacy log. What it prints of a
person is what the answer holds, and the asking institution is entitled to that.
"""

import argparse
import os
import sys
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import trio

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.codes import MEANINGS, Action, Code, Stage
from ksz_router.days import is_day
from ksz_router.limits import deadline_ms_default, deadline_ms_max
from ksz_router.messages import Answer, Request
from ksz_router.sdk import Identity, SdkError, new_ticket, open_client
from ksz_router.tls import TlsFilesError
from ksz_router.wire import LocalProtocolError, MessageTooLargeError

_BRUSSELS = ZoneInfo("Europe/Brussels")

_EXAMPLES = """\
examples:
  # does my certificate work, and what does the router see in it? Needs no grant
  ksz-router send --host router.example --router-uri urn:example:router \\
      --certificate own.crt --key own.key --authorities authorities.pem \\
      --service TestConnectionService

  # path A: sector 17, type 1, in capacity 2; user and person, one a line, on standard input
  ksz-router send ... --service UnemploymentData --version 3 \\
      --sector 17 --type 1 --capacity 2 --user - --person - < user-and-person

  # path B: by KBO number under a legal framework, for another program to read
  ksz-router send ... --service DmfaConsultationService --legal-framework VO:WORK_PERMIT \\
      --user - --level 2 --person - --payload @request.xml --json < user-and-person

  # a submission; where no answer came, the same again with its ticket: it is delivered once, and
  # says what became of it. Without --ticket a new one is made, and printed with the outcome
  ksz-router send ... --service A036 --sector 17 --type 1 --capacity 2 \\
      --user - --person - --payload @decision.xml --ticket D-2026-118 < user-and-person

A command line is seen by everyone on the machine, so real numbers of persons go in with "-".
exit status: 0 answered; 1 refused, failed, or no answer; 2 wrong usage.
"""

_NEXT = {
    Action.NONE: "nothing",
    Action.MEND_THE_DATA: "correct the request, then send it again",
    Action.ASK_FOR_THE_RIGHT: "ask your security officer for the access right, or the KSZ for the"
    " grant",
    Action.RETRY_AT: "send the same again with the same ticket",
    Action.SOURCE_DOWN: "try again later: the source has a problem, the request is in order",
    Action.MEND_THE_CLIENT: "correct the program that sends",
}

_NUMBERS = ("version", "sector", "type", "capacity", "level")
_TEXTS = ("service", "ticket", "user", "application", "means", "kbo", "legal_framework", "member",
          "final_client", "person", "enterprise", "source")  # fmt: skip
_DAYS = ("begin", "end")


def add(parser: ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    router = parser.add_argument_group("the router, and who we are")
    router.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    router.add_argument("--port", type=_u16, default=7443, help="default: %(default)s")
    router.add_argument(
        "--router-uri", required=True, metavar="URI", help="SAN URI that its certificate must carry"
    )
    router.add_argument("--certificate", type=Path, required=True, metavar="FILE", help="ours, PEM")
    router.add_argument("--key", type=Path, required=True, metavar="FILE", help="its key, PEM")
    router.add_argument(
        "--authorities", type=Path, required=True, metavar="FILE", help="whom we trust, PEM"
    )
    ask = parser.add_argument_group("the request; docs/protocol.md explains each field")
    ask.add_argument("--service", required=True, metavar="NAME")
    # The second name is that of `explain`, where the first is taken.
    ask.add_argument("--version", "--service-version", type=_u16, default=1, metavar="NUMBER")
    ask.add_argument("--person", metavar="INSZ|-", help="whom it is about; - reads standard input")
    ask.add_argument("--enterprise", metavar="KBO", help="or which enterprise")
    for name in ("sector", "type", "capacity"):
        ask.add_argument(f"--{name}", type=_u16, metavar="NUMBER")
    ask.add_argument("--legal-framework", metavar="NAME", help="instead of a capacity")
    ask.add_argument(
        "--user", metavar="INSZ|-", help="who asks; - reads a line before the person's"
    )
    ask.add_argument("--application", metavar="NUMBER", help="or which program")
    ask.add_argument("--level", type=_u16, default=0, metavar="0..4", help="how well authenticated")
    ask.add_argument("--means", default="", metavar="TEXT", help="and how")
    ask.add_argument("--kbo", metavar="KBO", help="who asks, by number")
    ask.add_argument("--member", metavar="KBO", help="the member that is asked for")
    ask.add_argument("--final-client", metavar="KBO", help="for whom an integrator asks")
    for name in _DAYS:
        ask.add_argument(f"--{name}", metavar="YYYY-MM-DD", help=f"{name} of the period, included")
    ask.add_argument("--source", metavar="KBO", help="ask this source only")
    ask.add_argument(
        "--ticket",
        default=None,
        metavar="TEXT",
        help="our reference, the same in a retry; default: new",
    )
    ask.add_argument("--payload", default="", metavar="TEXT|@FILE", help="what the source gets")
    ask.add_argument(
        "--deadline",
        type=float,
        default=deadline_ms_default / 1000,
        metavar="SECONDS",
        help="for everything, connecting included (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Namespace) -> int:
    """Ask and print."""
    if not 0 < arguments.deadline <= deadline_ms_max / 1000:
        raise UsageError(f"--deadline: more than 0 and at most {deadline_ms_max // 1000} seconds")
    request = _request(arguments)
    try:
        answer = trio.run(_ask, arguments, request)
    except TlsFilesError as error:
        raise UsageError(str(error)) from None
    if isinstance(answer, str):
        print(f"ksz-router: {answer}", file=sys.stderr)
        return NOT_IN_ORDER
    if arguments.json:
        print(msgspec.json.encode(_as_json(answer, request)).decode())
    else:
        for name, value in _lines(answer, request):
            print(f"{name:<13}{value}".rstrip())
    return OK if answer.stage == Stage.ANSWERED else NOT_IN_ORDER


async def _ask(arguments: Namespace, request: Request) -> Answer | str:
    """Return the answer, or why there is none."""
    identity = Identity(
        certificate=arguments.certificate, key=arguments.key, authorities=arguments.authorities
    )
    where = f"{arguments.host}:{arguments.port}"
    async with open_client(
        identity, host=arguments.host, port=arguments.port, uri=arguments.router_uri
    ) as client:
        # Caught in here: what leaves a nursery is wrapped in a group.
        try:
            return await client.ask(request, deadline_s=arguments.deadline)
        except SdkError as error:
            return f"{where}: {error} (ticket {request.ticket})"
        except MessageTooLargeError as error:
            return f"--payload: {error}"
        except LocalProtocolError as error:
            return f"{where}: not sent: {error}"
    raise AssertionError("the client swallows nothing")


def _request(arguments: Namespace) -> Request:
    values: dict[str, object] = {name: getattr(arguments, name) for name in (*_NUMBERS, *_TEXTS)}
    for name in ("user", "person"):
        if values[name] == "-":
            values[name] = sys.stdin.readline().strip()
            if not values[name]:
                raise UsageError(f"--{name} -: standard input has no line for it")
    for name in _DAYS:
        values[name] = _day(name, getattr(arguments, name))
    if values["ticket"] is None:
        values["ticket"] = new_ticket()
    return Request(id=0, payload=_payload(arguments.payload), **values)  # type: ignore[arg-type]


def _u16(text: str) -> int:
    """Read what fits on the wire; whether it means something is for the router to judge."""
    number = int(text)
    if not 0 <= number <= 0xFFFF:
        raise ValueError
    return number


def _day(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.replace("-", "")
    if len(digits) == 8 and digits.isascii() and digits.isdigit() and is_day(int(digits)):
        return int(digits)
    raise UsageError(f"--{name}: a day such as 2026-11-22")


def _payload(text: str) -> bytes:
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"--payload: {text[1:]}: {error.strerror}") from None


def _lines(answer: Answer, request: Request) -> Iterator[tuple[str, str]]:
    """Yield what is printed for people, name and value."""
    yield "code", f"{answer.code} {_name(answer.code)}"
    yield "stage", _stage(answer.stage)
    yield "official", f"{answer.official or '-'}  {answer.status}"
    if answer.code in set(Code):
        yield "in words", MEANINGS[Code(answer.code)].text
    yield "next", _next(answer)
    for name, value in answer.detail.items():
        yield "detail", f"{name}={value}"
    yield "exchange", _exchange(answer) or "none: turned away before the control"
    yield "ticket", request.ticket
    yield "rulebook", answer.generation or "-"
    for recipient in answer.recipients:
        own = f" ({recipient.source_code})" if recipient.source_code else ""
        yield "went to", f"{recipient.kbo}  {_name(recipient.code)}{own}"
    if not answer.recipients:
        yield "went to", "nobody"
    router_ms, source_ms = answer.router_us / 1000, answer.source_us / 1000
    yield "took", f"{router_ms:.2f} ms in the router, {source_ms:.2f} ms at the source"
    if answer.persons:
        yield "concerns", f"{len(answer.persons)} further persons"
    text = _printable(answer.payload)
    yield "payload", f"{len(answer.payload)} bytes" if text is None else text


def _as_json(answer: Answer, request: Request) -> dict[str, object]:
    text = _printable(answer.payload)
    return {
        "code": answer.code,
        "name": _name(answer.code),
        "stage": _stage(answer.stage),
        "official": answer.official,
        "status": answer.status,
        "next": _next(answer),
        "detail": answer.detail,
        "exchange": _exchange(answer),
        "ticket": request.ticket,
        "generation": answer.generation,
        "recipients": [
            {"kbo": r.kbo, "code": r.code, "name": _name(r.code), "source_code": r.source_code}
            for r in answer.recipients
        ],
        "retry_at_ms": answer.retry_at_ms,
        "router_us": answer.router_us,
        "source_us": answer.source_us,
        "persons": answer.persons,
        "payload_bytes": len(answer.payload),
        "payload": text,
    }


def _next(answer: Answer) -> str:
    if answer.action not in set(Action):
        return f"action {answer.action}, which this release does not know"
    words = _NEXT[Action(answer.action)]
    if answer.retry_at_ms is None:
        return words
    moment = datetime.fromtimestamp(answer.retry_at_ms / 1000, _BRUSSELS)
    return f"{words}, from {moment:%Y-%m-%d %H:%M:%S} Brussels time on"


def _name(code: int) -> str:
    return Code(code).name if code in set(Code) else "unknown to this release"


def _stage(stage: int) -> str:
    return Stage(stage).name.lower().replace("_", " ") if stage in set(Stage) else str(stage)


def _exchange(answer: Answer) -> str | None:
    return str(uuid.UUID(bytes=answer.exchange)) if len(answer.exchange) == 16 else None


def _printable(payload: bytes) -> str | None:
    """Return a payload as text; None where a terminal would not survive it."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\n\t" for c in text) else None
