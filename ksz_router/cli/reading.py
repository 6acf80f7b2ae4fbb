"""What the verbs that read a person share: the entry that comes first, and the reading itself.

No verb reads the person directory or the privacy log but after :meth:`Reading.record`.
"""

import argparse
import getpass
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ksz_router.directory.snapshot import Directory
from ksz_router.identifiers import Insz
from ksz_router.model import Day
from ksz_router.persons import Person
from ksz_router.privacylog.reading import record_reading


def add_reading(parser: argparse._ActionsContainer, *, required: bool = True) -> None:
    """Add ``--purpose`` and ``--reader``, the same in every verb that reads a person."""
    parser.add_argument("--purpose", required=required, metavar="TEXT", help="why; it is recorded")
    parser.add_argument("--reader", metavar="NAME", help="who reads (default: the login name)")


class Reading(NamedTuple):
    """Who reads, why, with which verb, and where that is recorded."""

    log: Path
    keys: Path
    node: str
    verb: str
    arguments: argparse.Namespace
    """With what :func:`add_reading` added."""

    def record(
        self,
        persons: Sequence[str],
        *,
        user: str | None = None,
        institution: str | None = None,
        begin: Day | None = None,
        end: Day | None = None,
    ) -> None:
        """Make the entries of a reading durable; where it raises, nothing may be shown.

        Raises:
            PrivacyLogError: it cannot be recorded; the message says why.
        """
        record_reading(
            self.log,
            self.keys,
            node=self.node,
            reader=self.arguments.reader or getpass.getuser(),
            purpose=self.arguments.purpose,
            verb=self.verb,
            now_ns=time.time_ns(),
            persons=tuple(map(Insz, persons)),
            user=None if user is None else Insz(user),
            institution=institution,
            begin=begin,
            end=end,
        )


class Found(NamedTuple):
    """What the person directory holds under one number."""

    person: Person | None
    others: tuple[str, ...]
    """The person's other numbers."""
    version: int


def look_up(folder: Path, number: str) -> Found:
    """Read one person in the directory, after it was recorded.

    What is found concerns the person under ``others`` too: record those before anything is shown.

    Raises:
        DirectoryError: it cannot be read.
    """
    directory = Directory.open(folder)
    try:
        person = directory.look_up([number])[0]
        return Found(person, directory.other_numbers(number), directory.version)
    finally:
        directory.close()
