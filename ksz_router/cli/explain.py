"""``ksz-router explain``: run the preventive control on one request and show each rule.

It judges with the rule table that the router uses, on the tables the router reads, and sends
nothing. It reads a person, so it records that first (design law 5) and shows nothing if it cannot.
"""

import argparse
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import NamedTuple

import msgspec

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.reading import Reading, add_reading, look_up
from ksz_router.codes import MEANINGS, Code
from ksz_router.config import load
from ksz_router.days import brussels_day, is_day
from ksz_router.decision import Facts, Forward, Refusal, Step, Verdict, explain, stand, unasked
from ksz_router.directory import DirectoryError
from ksz_router.directory.sectoral import Sectoral
from ksz_router.identifiers import is_insz
from ksz_router.messages import Request
from ksz_router.model import Day, Kind
from ksz_router.persons import Person
from ksz_router.privacylog import PrivacyLogError
from ksz_router.rights import Rights
from ksz_router.rulebook.activation import active
from ksz_router.rulebook.generation import RulebookError
from ksz_router.rulebook.snapshot import Snapshot

_EXAMPLES = """examples:
  ksz-router explain --config router.toml --as urn:kbo:0999016460 --purpose "ticket 4711" \\
      --service UnemploymentData --service-version 3 --sector 17 --type 1 --capacity 2 \\
      --user - --person - < user-and-person.txt
  ksz-router explain --config router.toml --as urn:kbo:0999016460 --purpose "ticket 4711" \\
      --request request.json

A user and a person are read from stdin (one line each, the user first) where "-" is given: a
command line is seen by everyone on the machine. A request file is a JSON object with the fields of
a Request in docs/protocol.md; options win over it. Exit code 0: would be forwarded; 1: refused.
"""

_SAID = {"known": True, "unknown": False, "unavailable": None}
_NUMBERS = ("sector", "type", "capacity", "begin", "end", "level")
_TEXTS = ("service", "user", "application", "means", "kbo", "legal_framework", "member",
          "final_client", "person", "enterprise", "source", "ticket")  # fmt: skip
_DEFAULTS: dict[str, object] = {"id": 1, "version": 1, "ticket": "explain"}
_FIELDS = {field.name: field for field in msgspec.structs.fields(Request)}


class _Tables(NamedTuple):
    """Where the tables and the privacy log are."""

    rulebook: Path
    directory: Path
    sectoral: Path
    log: Path
    keys: Path
    node: str


def add(parser: ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--as", required=True, dest="uri", metavar="URI", help="SAN URI of the caller's certificate"
    )
    add_reading(parser)
    parser.add_argument("--request", type=Path, metavar="FILE", help="the request as JSON")
    request = parser.add_argument_group("the request")
    request.add_argument("--service-version", type=int, dest="version", metavar="NUMBER")
    for name in _NUMBERS:
        request.add_argument(f"--{name}", type=int, metavar="NUMBER")
    for name in _TEXTS:
        request.add_argument(f"--{name.replace('_', '-')}", metavar="TEXT")
    tables = parser.add_argument_group("the tables")
    tables.add_argument("--config", type=Path, metavar="FILE", help="take the rest from here")
    tables.add_argument("--store", type=Path, metavar="DIR", help="the rulebook's generations")
    tables.add_argument("--generation", metavar="NAME", help="instead of the active one")
    tables.add_argument("--directory", type=Path, metavar="DIR", help="the person directory")
    tables.add_argument(
        "--sectoral", type=Path, metavar="DIR", help="the directories of secondary networks"
    )
    tables.add_argument("--log", type=Path, metavar="DIR", help="the privacy log")
    tables.add_argument("--keys", type=Path, metavar="DIR", help="the privacy log's keys")
    tables.add_argument(
        "--keepers-say", choices=_SAID, default="known", metavar="WHAT",
        help="what managing institutions that keep a directory are taken to say (nobody is asked): "
        "known (unless said), unknown, unavailable",
    )  # fmt: skip
    parser.add_argument("--today", type=int, metavar="YYYYMMDD", help="judge as if on this day")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Namespace) -> int:
    """Explain one request."""
    now_ns = time.time_ns()
    today = brussels_day(now_ns) if arguments.today is None else arguments.today
    if not is_day(today):
        raise UsageError("--today is not a day: give it as yyyymmdd")
    request, tables = _request(arguments), _tables(arguments)
    try:
        snapshot = Snapshot.open(tables.rulebook, arguments.generation or active(tables.rulebook))
        try:
            reading = Reading(tables.log, tables.keys, tables.node, "explain", arguments)
            person = _read_person(request, tables.directory, reading)
            facts = snapshot.look_up(
                request,
                arguments.uri,
                now_ns // 1_000_000,
                find_rights=Rights(snapshot).find,
                person=person,
            )
            facts = _with_sectoral(facts, request, today, snapshot, tables.sectoral)
            facts = _with_answers(facts, request, today, _SAID[arguments.keepers_say])
        finally:
            snapshot.close()
    except (RulebookError, DirectoryError, PrivacyLogError, OSError) as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER
    steps, verdict = explain(request, facts, today)
    taken = [
        f"{n.institution} {arguments.keepers_say} at {n.keeper.kbo}" for n in facts.answers or ()
    ]
    if arguments.json:
        _print_json(snapshot.generation, steps, _outcome(verdict, taken))
    else:
        _print_text(snapshot.generation, steps, _outcome(verdict, taken))
    return OK if isinstance(verdict, Forward) else NOT_IN_ORDER


def _tables(arguments: Namespace) -> _Tables:
    own = (arguments.store, arguments.directory, arguments.log, arguments.keys)
    if arguments.config is None:
        if None in own:
            raise UsageError("give --config, or all of --store, --directory, --log and --keys")
        sectoral = arguments.sectoral or arguments.directory.with_name("sectoral")
        return _Tables(*own[:2], sectoral, *own[2:], node="local")
    config = load(arguments.config)
    return _Tables(
        rulebook=arguments.store or Path(config.tables.rulebook),
        directory=arguments.directory or Path(config.tables.directory),
        sectoral=arguments.sectoral or Path(config.tables.sectoral),
        log=arguments.log or Path(config.privacy_log.path),
        keys=arguments.keys or Path(config.privacy_log.keys),
        node=config.node.name,
    )


def _read_person(request: Request, directory: Path, reading: Reading) -> Person | None:
    """Record the reading, then read. What is no INSZ is in no table, and is read by nobody.

    The rights of a user are read too, so the user is recorded as the person is.
    """
    user = request.user if request.user is not None and is_insz(request.user) else None
    number = request.person if request.person is not None and is_insz(request.person) else None
    if number is None:
        if user is not None:
            reading.record((), user=user)
        return None
    reading.record((number,), user=user)
    found = look_up(directory, number)
    if found.others:
        reading.record(found.others, user=user)
    return found.person


def _with_sectoral(
    facts: Facts, request: Request, today: Day, snapshot: Snapshot, folder: Path
) -> Facts:
    """Add what the directories of secondary networks hold; the person's reading is recorded."""
    networks = stand(request, facts, today).networks
    if not networks:
        return facts
    sectoral = Sectoral(folder)
    try:
        sectoral.keep(set(networks) & set(snapshot.sectoral_networks))
        return msgspec.structs.replace(
            facts, sectoral=sectoral.look_up([(request.person, networks)])[0]
        )
    finally:
        sectoral.close()


def _with_answers(facts: Facts, request: Request, today: Day, said: bool | None) -> Facts:  # noqa: FBT001
    """Take the keepers of sectoral directories to say this, to whatever they would be asked."""
    while questions := unasked(request, facts, today):
        answers = {**(facts.answers or {}), **dict.fromkeys(questions, said)}
        facts = msgspec.structs.replace(facts, answers=answers)
    return facts


def _request(arguments: Namespace) -> Request:
    values = dict(_DEFAULTS)
    if arguments.request is not None:
        values |= _from_file(arguments.request)
    for name in (*_NUMBERS, *_TEXTS, "version"):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    for name in ("user", "person"):
        if values.get(name) == "-":
            values[name] = sys.stdin.readline().strip()
    if "service" not in values:
        raise UsageError("name the service: --service, or in the request file")
    return Request(**values)  # type: ignore[arg-type]


def _from_file(file: Path) -> dict[str, object]:
    try:
        table = msgspec.json.decode(file.read_bytes(), type=dict[str, object])
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{file}: is not a JSON object") from error
    values = {}
    for name, value in table.items():
        field = _FIELDS.get(name)
        if field is None:
            raise UsageError(f"{file}: a Request has no field {name!r}; see docs/protocol.md")
        try:
            values[name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            raise UsageError(f"{file}: {name}: {error}") from error
    return values


def _print_text(generation: str, steps: list[Step], outcome: dict[str, object]) -> None:
    print(f"rulebook {generation}")
    for step in steps:
        mark = "✓" if step.refusal is None else "✗"
        print(f"{mark} {step.stage.name.lower().replace('_', ' '):18} {step.question}")
    for name, value in outcome.items():
        if value not in ("", [], None):
            print(f"{name.replace('_', ' '):20} {value}")


def _print_json(generation: str, steps: list[Step], outcome: dict[str, object]) -> None:
    tried = [
        {"stage": s.stage.name, "question": s.question, "holds": s.refusal is None} for s in steps
    ]
    value = {"generation": generation, "rules": tried, "outcome": outcome}
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _outcome(verdict: Verdict, taken: list[str]) -> dict[str, object]:
    """What came of it, and what managing institutions were taken to say."""
    found = _refusal(verdict) if isinstance(verdict, Refusal) else _forward(verdict)
    return {**found, "taken_as": taken} if taken else found


def _forward(verdict: Forward) -> dict[str, object]:
    answered_here = verdict.service.kind is Kind.TEST
    return {
        "verdict": "answered by the router" if answered_here else "forward",
        "acting": verdict.acting,
        "grant": verdict.grant.id if verdict.grant is not None else "",
        "basis": verdict.grant.basis if verdict.grant is not None else "",
        "violations": list(verdict.violations),
        "destinations": [_destination(verdict, number) for number in range(_asked(verdict))],
        "in_outage": list(verdict.in_outage),
    }


def _asked(verdict: Forward) -> int:
    """A distribution goes to all destinations, anything else to the first."""
    count = len(verdict.destinations)
    return count if verdict.service.kind is Kind.DISTRIBUTION else min(count, 1)


def _destination(verdict: Forward, number: int) -> str:
    found = verdict.destinations[number]
    known = f" in capacity {found.line.capacity}" if found.line is not None else ""
    receive = f", receives by {found.receive}" if found.receive else ""
    broken = ", integration broken and logged" if found.violation else ""
    return f"{found.kbo} as {found.role.sector}/{found.role.type}{known}{receive}{broken}"


def _refusal(refusal: Refusal) -> dict[str, object]:
    meaning = MEANINGS[Code(refusal.code)]
    return {
        "verdict": "refuse",
        "code": f"{refusal.code.value} {refusal.code.name}",
        "official_code": meaning.official,
        "status": meaning.status,
        "text": meaning.text,
        "next": meaning.action.name.lower().replace("_", " "),
        "field": refusal.field,
        "grant": refusal.grant,
        # The new number itself is not shown: `directory show` does, and records that reading.
        "replaced": "by another INSZ" if refusal.replaced_by else "",
        "retry_at_ms": refusal.retry_at_ms or None,
    }
