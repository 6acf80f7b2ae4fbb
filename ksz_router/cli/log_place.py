"""Where the privacy log, its keys and its archive are: the same options in every ``log`` verb."""

import argparse
from pathlib import Path
from typing import NamedTuple

from ksz_router.cli import UsageError, add_config
from ksz_router.config import load


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, and ``--log``, ``--keys`` and ``--archive`` for a copy elsewhere."""
    add_config(parser)
    parser.add_argument("--log", type=Path, metavar="DIR", help="a log other than the configured")
    parser.add_argument("--keys", type=Path, metavar="DIR", help="its keys; goes with --log")
    parser.add_argument("--archive", type=Path, metavar="DIR", help="its archive; goes with --log")


class Place(NamedTuple):
    """Where the log, its keys, its archive and the directory are."""

    node: str
    log: Path
    keys: Path
    archive: Path | None = None
    directory: Path | None = None


def place_of(arguments: argparse.Namespace) -> Place:
    """Return where things are: as configured, or as given for a copy of a log.

    Raises:
        UsageError: a part is given without the others that it needs.
        ConfigError: the configuration cannot be used.
    """
    copy = arguments.log is not None
    if copy != (arguments.keys is not None) or (arguments.archive is not None and not copy):
        raise UsageError("give --log and --keys together, or neither and a --config")
    if copy:
        return Place("copy", arguments.log, arguments.keys, arguments.archive)
    config = load(arguments.config)
    log = config.privacy_log
    return Place(
        config.node.name,
        Path(log.path),
        Path(log.keys),
        Path(config.archive.path),
        Path(config.tables.directory),
    )
