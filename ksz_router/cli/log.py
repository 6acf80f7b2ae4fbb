"""``ksz-router log``: the privacy log asked, checked and proved; one module for each verb."""

import argparse
import importlib
import sys
from typing import cast

from ksz_router.cli import NOT_IN_ORDER, Verb
from ksz_router.privacylog import PrivacyLogError

VERBS = {
    "query": "find exchanges by person, institution, user, service",
    "stats": "count exchanges by month, service, institution and verdict",
    "replay": "decide again on what is recorded: the same verdict, or an alarm",
    "prove": "write a file that proves an entry to anyone",
    "verify": "check that the log is whole, and that it proves what it is said to prove",
}
"""Each verb has a module ``log_<verb>`` with ``add`` and ``run``; what few machines have installed
it imports when it runs."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs, each with its arguments and examples."""
    verbs = parser.add_subparsers(dest="log_verb", required=True, metavar="|".join(VERBS))
    for name, text in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        _module(name).add(sub)


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    try:
        return _module(arguments.log_verb).run(arguments)
    except PrivacyLogError as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER


def _module(verb: str) -> Verb:
    return cast("Verb", importlib.import_module(f"ksz_router.cli.log_{verb}"))
