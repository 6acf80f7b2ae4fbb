"""``ksz-router status``: how a running router is."""

import argparse
import sys
from pathlib import Path

import msgspec
import trio

from ksz_router import config
from ksz_router.cli import NOT_IN_ORDER, OK, add_config
from ksz_router.daemon import admin
from ksz_router.daemon.admin import Status


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument(
        "--reload",
        action="store_true",
        help="first reload rulebook, certificates and configuration, as SIGHUP does, and say "
        "what changed and what was refused",
    )
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="FILE",
        help="the router's admin socket (default: as the configuration says, which is not read "
        "when this is given)",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """\
Exits with 0 when every worker is ready and nothing was refused, else with 1.

examples:
  ksz-router status
  ksz-router status --reload --json | jq .reload
  ksz-router status --socket /run/ksz-router/admin.sock
"""


def run(arguments: argparse.Namespace) -> int:
    """Ask and print."""
    path = arguments.socket or Path(config.load(arguments.config).admin.socket)
    try:
        status = trio.run(admin.ask, path, "reload" if arguments.reload else "status")
    except OSError as error:
        print(f"ksz-router: {path}: no router answers ({error.strerror})", file=sys.stderr)
        return NOT_IN_ORDER
    except (trio.TooSlowError, msgspec.MsgspecError):
        print(f"ksz-router: {path}: no answer that can be understood", file=sys.stderr)
        return NOT_IN_ORDER
    if arguments.json:
        print(msgspec.json.encode(status).decode())
    else:
        _print(status)
    return OK if status.is_ready and not status.failed else NOT_IN_ORDER


def _print(status: Status) -> None:
    state = "stopping" if status.is_stopping else "ready" if status.is_ready else "not ready"
    print(f"{status.node}: {state}, rulebook {status.generation}")
    print(f"{'worker':>6} {'pid':>8} {'state':<9} {'restarts':>8} {'sessions':>8} {'in flight':>9} "
          f"{'exchanges':>10}  directory  rulebook")  # fmt: skip
    for worker in status.workers:
        report = worker.report
        word = "ready" if worker.is_ready else "starting" if report is None else "not ready"
        numbers = (
            f"{report.sessions:>8} {report.inflight:>9} {report.exchanges:>10}  "
            f"{report.directory_version:>9}  {report.generation[:12]}"
            if report is not None
            else ""
        )
        print(f"{worker.index:>6} {worker.pid:>8} {word:<9} {worker.restarts:>8} {numbers}")
        if report is not None and worker.why_not:
            print(f"       not ready: {worker.why_not}")
        for kbo, how in (report.sources if report is not None else {}).items():
            print(f"       source {kbo}: {how}")
    for program in status.programs:
        state = program.state or "starting"
        print(f"{program.name}: pid {program.pid}, {program.restarts} restarts, {state}")
    for name, part in status.reload.items():
        print(f"{name}: {part.outcome}{': ' if part.reason else ''}{part.reason}")
        for key in part.needs_restart:
            print(f"{name}: {key} differs and needs a restart")
        for index, why in part.replaced.items():
            print(f"{name}: worker {index} is replaced: {why}")
