"""``ksz-router log verify``: whether the privacy log is whole; one module for each check."""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any, cast

from ksz_router.cli import Verb

CHECKS = {
    "wal": "check every byte of the write-ahead files against the format (the default)",
    "fast": "check the archive by the hashes of its files, up to the signed root",
    "full": "check every record of the archive, up to the signed root",
    "derived": "check that the derived files say what the sealed records say",
    "checkpoint": "check that its log signed a checkpoint",
    "consistency": "check that a checkpoint continues an earlier one",
    "record": "check that a proof proves the record it holds",
}
"""Each check has a module ``log_verify_<name>`` with ``add`` and ``run``."""

_DEFAULT = "wal"


class _Checks(argparse._SubParsersAction):  # type: ignore[type-arg]  # noqa: SLF001  generic in stubs only
    """Refuses options before the name of a check: those of the check would put them aside."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = (name for name in vars(namespace) if name not in {self.dest, "verb", "log_verb"})
        if any(getattr(namespace, name) != parser.get_default(name) for name in given):
            parser.error(f"options come behind the name of the check ({'|'.join(CHECKS)})")
        super().__call__(parser, namespace, values, option_string)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the checks, each with its arguments, and the arguments of the default one."""
    _module(_DEFAULT).add(parser)
    checks = parser.add_subparsers(
        action=_Checks, dest="log_check", metavar=f"[{'|'.join(CHECKS)}]", help="what is checked"
    )
    for name, text in CHECKS.items():
        sub = checks.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        _module(name).add(sub)


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    return _module(arguments.log_check or _DEFAULT).run(arguments)


def _module(check: str) -> Verb:
    return cast("Verb", importlib.import_module(f"ksz_router.cli.log_verify_{check}"))
