"""The command ``ksz-router``: one file per verb, each with ``add`` and ``run``.

Exit codes: 0 done; 1 the thing asked about is not in order, or was refused; 2 wrong usage;
78 the configuration cannot be used (``EX_CONFIG``).
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from ksz_router import __version__
from ksz_router.config import ConfigError

OK, NOT_IN_ORDER, USAGE, BAD_CONFIG = 0, 1, 2, 78

VERBS = {
    "run": "run the router: a supervisor and its workers",
    "check-config": "check a configuration file and what it points to",
    "status": "show how a running router is",
    "rulebook": "check, build and activate rulebooks",
    "directory": "load, show and synthesise the person directory",
    "report": "make the dashboards of a quarter",
    "explain": "run the preventive control on one request and show each rule",
    "send": "send one request to a router and print the answer",
    "log": "query and verify the privacy log",
    "keys": "make signing keys, privacy-log keys and a test PKI",
}


class Verb(Protocol):
    """What a verb's module offers."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Declare arguments and examples."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code."""


class UsageError(Exception):
    """The command line asks for something that cannot be done. The message says what can."""


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, the same in every verb that needs one."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("/etc/ksz-router/router.toml"),
        metavar="FILE",
        help="configuration file (default: %(default)s)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ksz-router", description="Run, feed and question a crossroads-bank router."
    )
    parser.add_argument("--version", action="version", version=f"ksz-router {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    asked = next((word for word in words if word in VERBS), None)
    for name, text in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == asked:  # only the asked verb is imported: start-up stays short
            _module(name).add(sub)
    arguments = parser.parse_args(words)
    try:
        return _module(arguments.verb).run(arguments)
    except ConfigError as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return BAD_CONFIG
    except UsageError as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return USAGE


def _module(verb: str) -> Verb:
    name = f"ksz_router.cli.{verb.replace('-', '_')}"
    return cast("Verb", importlib.import_module(name))
