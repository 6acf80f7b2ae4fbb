"""``ksz-router check-config``: whether a router could start with this configuration."""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

from ksz_router import config
from ksz_router.cli import BAD_CONFIG, OK, add_config
from ksz_router.config import Config
from ksz_router.credentials import Credentials
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.directory_process import identity_of
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.sectoral import Sectoral
from ksz_router.directory.snapshot import Directory
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.keys import load, quarter_after, quarter_of
from ksz_router.privacylog.tree.checkpoint import Signer
from ksz_router.rulebook import activation
from ksz_router.rulebook.generation import RulebookError
from ksz_router.rulebook.snapshot import Snapshot
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
    print(f"configuration     ok  {arguments.config}")
    checks: tuple[tuple[str, Callable[[Config], str]], ...] = (
        ("certificates", _certificates),
        ("rulebook", _rulebook),
        ("directory", _directory),
        ("sectoral", _sectoral),
        ("directory program", _directory_program),
        ("log keys", _log_keys),
        ("checkpoint keys", _checkpoint_keys),
        ("archive", _archive),
        ("ledger", _ledger),
    )
    code = OK
    for name, check in checks:
        try:
            found = check(settings)
        except (TlsFilesError, RulebookError, DirectoryError, PrivacyLogError, OSError) as error:
            print(f"{name:<17} NOT OK  {error}")
            code = BAD_CONFIG
        else:
            print(f"{name:<17} ok  {found}")
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


def _sectoral(settings: Config) -> str:
    """The directories of the secondary networks that the rulebook in force says are hosted here."""
    store = Path(settings.tables.rulebook)
    try:
        snapshot = Snapshot.open(store, activation.active(store))
    except RulebookError:
        return "not known without a rulebook"  # which is told of by its own line
    sectoral = Sectoral(Path(settings.tables.sectoral))
    try:
        sectoral.keep(snapshot.sectoral_networks)
        if sectoral.down:
            raise DirectoryError("; ".join(sectoral.down.values()))
        return ", ".join(snapshot.sectoral_networks) or "none"
    finally:
        sectoral.close()
        snapshot.close()


def _directory_program(settings: Config) -> str:
    serving = settings.directory
    if not serving.serving:
        return "none; the directory is changed by loading it anew"
    Credentials(identity_of(settings), time.time)
    told = settings.notices.application
    tells = f"tells what became of numbers as {told}" if told else "[notices] tells nobody anything"
    return f"{serving.certificate}, on {serving.host}, port {serving.port}; {tells}"


def _ledger(settings: Config) -> str:
    """The ledger is made by ``run``; here it is enough that it can be."""
    path = Path(settings.ledger.path)
    _check_can_be_made(path, "ledger.path")
    return str(path)


def _checkpoint_keys(settings: Config) -> str:
    signer = Signer(Path(settings.archive.keys), settings.archive.origin)
    return f"of {signer.origin}"


def _archive(settings: Config) -> str:
    """Archive and last checkpoint are made by ``run``, and what seals is there."""
    path, last = Path(settings.archive.path), Path(settings.archive.last_checkpoint)
    _check_can_be_made(path, "archive.path")
    _check_can_be_made(last.parent, "archive.last_checkpoint")
    if settings.archive.sealing and importlib.util.find_spec("pyarrow") is None:
        raise FileNotFoundError(
            "archive.sealing needs more packages: install ksz-router[audit], or set it to false "
            "where another machine seals"
        )
    return f"{path}, last checkpoint in {last}"


def _check_can_be_made(path: Path, key: str) -> None:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{there}: cannot be written, and is needed for {path}; "
            f"give it to the service's user, or change {key}"
        )


def _log_keys(settings: Config) -> str:
    now = quarter_of(time.time_ns())
    for quarter in (now, quarter_after(now)):
        load(Path(settings.privacy_log.keys), quarter)
    return f"{now} and {quarter_after(now)}"
