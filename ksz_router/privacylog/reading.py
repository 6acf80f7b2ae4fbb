"""Record that somebody is about to read a person, before a local verb shows anything.

Each process writes to a slot of its own, so that a query never waits for a worker and a worker
never for a query.
"""

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from ksz_router.identifiers import Insz
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.entry import Entry, Kind, canonical
from ksz_router.privacylog.frame import FILE_BYTES_MIN
from ksz_router.privacylog.keys import Tokens, load, quarter_of
from ksz_router.privacylog.writer import Writer

PURPOSE_CHARS_MAX = 256
READER_CHARS_MAX = 64
_ELEVEN_DIGITS = re.compile(r"(?<!\d)(\d[ .\-/]?){10}\d(?!\d)")


class ReadingRefused(PrivacyLogError):
    """Who reads and why is not stated in a form that can be recorded."""


def record_reading(
    log: Path,
    keys_folder: Path,
    *,
    node: str,
    reader: str,
    purpose: str,
    verb: str,
    now_ns: int,
    persons: Sequence[Insz] = (),
    user: Insz | None = None,
    institution: str | None = None,
    begin: int | None = None,
    end: int | None = None,
) -> None:
    """Make one ``READING`` entry per number durable; one without person where none is named.

    Call it before the first look; where it raises, nothing may be read or shown.

    Args:
        log: Folder of the log; it must exist.
        keys_folder: Of the quarter keys.
        node: Name of the router.
        reader: Who reads: a login name, or whom an operator acts for.
        purpose: Why, in words, such as the number of a file.
        verb: What reads, such as ``log query``.
        now_ns: Unix nanoseconds.
        persons: All numbers of the person that is read.
        user: Whose use is read.
        institution: KBO number of the institution whose use is read.
        begin: First day asked about, ``yyyymmdd``.
        end: Last day asked about, ``yyyymmdd``.

    Raises:
        ReadingRefused: reader or purpose is missing, too long, or holds a person's number.
        LogNotWritable: the disk refuses.
        KeysError: the key file of this quarter is missing.
    """
    _check_words("reader", reader, READER_CHARS_MAX)
    _check_words("purpose", purpose, PURPOSE_CHARS_MAX)
    if not log.is_dir():
        raise ReadingRefused(f"{log}: no privacy log here, so nothing can be recorded or read")
    tokens = Tokens(load(keys_folder, quarter_of(now_ns)))
    records = [
        canonical(
            Entry(
                kind=Kind.READING,
                at_us=now_ns // 1000,
                service=verb,
                reader=reader,
                purpose=purpose,
                person=None if number is None else tokens.person(number.digits),
                user=None if user is None else tokens.user(user.digits),
                enterprise=institution,
                begin=begin,
                end=end,
            )
        )
        for number in (persons or (None,))
    ]
    writer = Writer.open(
        log,
        slot=f"v-{os.getpid()}-{secrets.token_hex(4)}",
        node=node,
        keys_folder=keys_folder,
        now_ns=now_ns,
        file_bytes=FILE_BYTES_MIN,
    )
    try:
        writer.commit(records, now_ns)
    finally:
        writer.close()


def _check_words(name: str, text: str, chars_max: int) -> None:
    if not text.strip() or len(text) > chars_max or not text.isprintable():
        raise ReadingRefused(f"the {name} must be stated in 1 to {chars_max} characters")
    if _ELEVEN_DIGITS.search(text):
        raise ReadingRefused(f"the {name} holds eleven digits in a row: name no person in it")
