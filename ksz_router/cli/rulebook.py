"""``ksz-router rulebook``: check a folder of text, build a generation, activate it, show it."""

import argparse
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.days import brussels_day, is_day
from ksz_router.identifiers import is_insz, is_kbo
from ksz_router.model import OPEN, Day, Grant
from ksz_router.rights import user_key
from ksz_router.rulebook.activation import activate, active
from ksz_router.rulebook.check import check
from ksz_router.rulebook.compile import RulebookRefusedError, build
from ksz_router.rulebook.generation import NoActiveGenerationError, RulebookError
from ksz_router.rulebook.rows import Finding
from ksz_router.rulebook.snapshot import Snapshot
from ksz_router.rulebook.source import read

_EXAMPLES = """examples:
  ksz-router rulebook check config/rulebook-example
  ksz-router rulebook build config/rulebook-example --store /var/lib/ksz-router/rulebook
  ksz-router rulebook activate NAME --store /var/lib/ksz-router/rulebook --key keys/rulebook-signer
  ksz-router rulebook show --store /var/lib/ksz-router/rulebook
  ksz-router rulebook user-key --institution 0999016460 < insz.txt

A router takes an activated generation over at its next reload (`ksz-router status --reload`).
docs/rulebook.md has the format.
"""


def add(parser: ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = actions.add_parser("check", help="say everything that is wrong with a folder of text")
    action.add_argument("folder", type=Path, metavar="FOLDER")
    _add_today(action)
    _add_json(action)

    action = actions.add_parser("build", help="check a folder and compile it into a generation")
    action.add_argument("folder", type=Path, metavar="FOLDER")
    _add_store(action)
    _add_today(action)
    _add_json(action)

    action = actions.add_parser("activate", help="sign a generation and make it the active one")
    action.add_argument("name", metavar="NAME", help="the name that build printed")
    _add_store(action)
    action.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        help="the signer's Ed25519 private key (PEM), or the public key of a generation that was "
        "signed elsewhere",
    )

    action = actions.add_parser("show", help="list the generations of a store, or show one")
    action.add_argument("name", nargs="?", metavar="NAME")
    _add_store(action)
    _add_json(action)

    action = actions.add_parser("user-key", help="read an INSZ from stdin and print its user_key")
    action.add_argument("--institution", required=True, metavar="KBO")


def _add_store(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--store", type=Path, required=True, metavar="DIR", help="the folder of the generations"
    )


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_today(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--today", type=int, metavar="YYYYMMDD", help="judge expiry from this day (default: today)"
    )


def run(arguments: Namespace) -> int:
    """Do one action."""
    try:
        return _ACTIONS[arguments.action](arguments)
    except RulebookRefusedError as error:
        _print_findings(arguments, error.findings)
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER
    except RulebookError as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER


def _check(arguments: Namespace) -> int:
    text, findings = read(arguments.folder)
    findings += check(text, _today(arguments))
    _print_findings(arguments, findings)
    errors = sum(finding.is_error for finding in findings)
    if not arguments.json:
        print(f"{len(text.files)} files: {errors} errors, {len(findings) - errors} warnings")
    return NOT_IN_ORDER if errors else OK


def _build(arguments: Namespace) -> int:
    manifest, findings = build(
        arguments.folder, arguments.store, now_ns=time.time_ns(), today=_today(arguments)
    )
    if arguments.json:
        warnings = [_as_dict(finding) for finding in findings]
        _print_json({"manifest": manifest, "findings": warnings})
        return OK
    _print_findings(arguments, findings)
    for what, count in manifest.counts.items():
        print(f"{what:14}{count:8}")
    print(f"built {manifest.name}; `ksz-router rulebook activate` signs it and makes it active")
    return OK


def _activate(arguments: Namespace) -> int:
    manifest = activate(arguments.store, arguments.name, arguments.key)
    print(f"active: {manifest.name}")
    return OK


def _show(arguments: Namespace) -> int:
    try:
        current = active(arguments.store)
    except NoActiveGenerationError:
        current = ""
    if arguments.name is None:
        folder = arguments.store / "generations"
        names = sorted(p.name for p in folder.glob("[!.]*")) if folder.is_dir() else []
        if arguments.json:
            _print_json({"active": current, "generations": names})
        for name in () if arguments.json else names:
            print(f"{name}{'  active' if name == current else ''}")
        return OK
    snapshot = Snapshot.open(arguments.store, arguments.name)
    try:
        if arguments.json:
            _print_json(_rows(snapshot))
        else:
            _print_rows(snapshot)
    finally:
        snapshot.close()
    return OK


def _rows(snapshot: Snapshot) -> dict[str, object]:
    services = []
    for service in snapshot.services():
        grants = snapshot.grants(service.name, service.version)
        sources = snapshot.sources(service.name, service.version)
        services.append(
            {
                "service": _fields(service),
                "grants": [_fields(grant) for grant in grants],
                "sources": [
                    _fields(row) | {"receive": [_fields(grant) for grant in row.receive]}
                    for row in sources
                ],
            }
        )
    institutions = [_fields(row) for row in snapshot.institutions()]
    name = snapshot.generation
    return {"generation": name, "institutions": institutions, "services": services}


def _fields(row: msgspec.Struct) -> dict[str, object]:
    return msgspec.structs.asdict(row)


def _print_rows(snapshot: Snapshot) -> None:
    print(f"generation {snapshot.generation}")
    for row in snapshot.institutions():
        roles = " ".join(f"{role.sector}/{role.type}" for role in row.roles)
        print(f"institution {row.kbo}  {roles:12} {row.name}")
    for service in snapshot.services():
        kind, subject = service.kind.name.lower(), service.subject.name.lower()
        print(f"service {service.name} version {service.version}: {kind}, subject {subject}")
        for grant in snapshot.grants(service.name, service.version):
            print(f"  grant {_in_words(grant)}")
        for source in snapshot.sources(service.name, service.version):
            mode = source.mode.name.lower()
            print(
                f"  source {source.kbo} as {source.role.sector}/{source.role.type}, control {mode}"
            )
            for grant in source.receive:
                print(f"    grant {_in_words(grant)}")


def _in_words(grant: Grant) -> str:
    role = f"{grant.role.sector}/{grant.role.type}" if grant.role is not None else ""
    path = f"framework {grant.framework}" if grant.framework else "path A"
    capacities = ",".join(str(code) for code in sorted(grant.capacities)) or "none"
    end = "open" if grant.end == OPEN else str(grant.end)
    return (
        f"{grant.id}: {grant.direction.name.lower()} by {role or grant.kbo}, {path}, capacities "
        f"{capacities}, {grant.begin or 'always'} to {end}, basis {grant.basis}"
    )


def _user_key(arguments: Namespace) -> int:
    if not is_kbo(arguments.institution):
        raise UsageError("--institution is not a KBO number: give ten digits, check digits right")
    insz = sys.stdin.readline().strip()
    if not is_insz(insz):
        raise UsageError("stdin holds no INSZ: give eleven digits on one line")
    print(user_key(arguments.institution, insz))
    return OK


def _today(arguments: Namespace) -> Day:
    if arguments.today is None:
        return brussels_day(time.time_ns())
    if not is_day(arguments.today):
        raise UsageError("--today is not a day: give it as yyyymmdd")
    return int(arguments.today)


def _print_findings(arguments: Namespace, findings: Iterable[Finding]) -> None:
    if arguments.json:
        _print_json({"findings": [_as_dict(finding) for finding in findings]})
        return
    for finding in findings:
        print(finding)


def _as_dict(finding: Finding) -> dict[str, object]:
    return {
        "error": finding.is_error,
        "file": finding.place.file,
        "line": finding.place.line,
        "reason": finding.reason,
        "mend": finding.mend,
    }


def _print_json(value: object) -> None:
    encoded = msgspec.json.encode(value, order="deterministic")
    print(msgspec.json.format(encoded, indent=2).decode())


_ACTIONS: dict[str, Callable[[Namespace], int]] = {
    "check": _check,
    "build": _build,
    "activate": _activate,
    "show": _show,
    "user-key": _user_key,
}
