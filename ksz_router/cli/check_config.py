"""``ksz-router check-config``: whether a router could start with this configuration."""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from ksz_router import config
from ksz_router.cli import BAD_CONFIG, OK, add_config
from ksz_router.config import Config
from ksz_router.daemon.contexts import Contexts
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.snapshot import Directory
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.keys import load, quarter_after, quarter_of
from ksz_router.rulebook import activation
from ksz_router.rulebook.generation import RulebookError
from ksz_router.tls import TlsFilesError


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    add_config(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """\
Opens everything that `ksz-router run` would open, and changes nothing. Exits with 78 if a router
could not start.

examples:
  ksz-router check-config --config /etc/ksz-router/router.toml
"""


def run(arguments: argparse.Namespace) -> int:
    """Check each part and print how it is."""
    settings = config.load(arguments.config)
    print(f"configuration  ok  {arguments.config}")
    checks: tuple[tuple[str, Callable[[Config], str]], ...] = (
        ("certificates", _certificates),
        ("rulebook", _rulebook),
        ("directory", _directory),
        ("log keys", _log_keys),
        ("ledger", _ledger),
    )
    code = OK
    for name, check in checks:
        try:
            found = check(settings)
        except (TlsFilesError, RulebookError, DirectoryError, PrivacyLogError, OSError) as error:
            print(f"{name:<14} NOT OK  {error}")
            code = BAD_CONFIG
        else:
            print(f"{name:<14} ok  {found}")
    return code


def _certificates(settings: Config) -> str:
    Contexts(settings.tls)
    return settings.tls.certificate


def _rulebook(settings: Config) -> str:
    store = Path(settings.tables.rulebook)
    name = activation.active(store)
    activation.verify(store, name, Path(settings.tables.rulebook_signer))
    return name


def _directory(settings: Config) -> str:
    directory = Directory.open(Path(settings.tables.directory))
    try:
        return f"version {directory.version}, {directory.numbers_count} numbers"
    finally:
        directory.close()


def _ledger(settings: Config) -> str:
    """The ledger is made by ``run``; here it is enough that it can be."""
    path = Path(settings.ledger.path)
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{there}: cannot be written, and the ledger goes to {path}; "
            "give it to the service's user, or change ledger.path"
        )
    return str(path)


def _log_keys(settings: Config) -> str:
    now = quarter_of(time.time_ns())
    for quarter in (now, quarter_after(now)):
        load(Path(settings.privacy_log.keys), quarter)
    return f"{now} and {quarter_after(now)}"
