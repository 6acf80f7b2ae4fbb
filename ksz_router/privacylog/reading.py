"""Record that somebody is about to read a person, before a local verb shows anything.

Each process writes to a slot of its own while it runs, so that a query never waits for a worker and
a worker never for a query. A slot is taken again by later readings of the same system user: their
files are chained, so that no single reading can be taken away unseen.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ksz_router.identifiers import Insz
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.entry import Entry, Kind, canonical
from ksz_router.privacylog.frame import FILE_BYTES_MIN
from ksz_router.privacylog.keys import KeysError, Tokens, load, quarter_of
from ksz_router.privacylog.recovery import LogCorrupt
from ksz_router.privacylog.taking import SlotTaken
from ksz_router.privacylog.writer import Writer

PURPOSE_CHARS_MAX = 256
READER_CHARS_MAX = 64
READINGS_AT_ONCE_MAX = 64
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
        ReadingRefused: reader or purpose is missing, too long, or holds a person's number; or
            too many readings are being recorded at this moment.
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
    writer = _open_free_slot(log, keys_folder, node=node, now_ns=now_ns)
    try:
        writer.commit(records, now_ns)
    finally:
        writer.close()
    if os.geteuid() == 0:
        leave_to_owner(log, writer.file.parent)


def _open_free_slot(log: Path, keys_folder: Path, *, node: str, now_ns: int) -> Writer:
    """Take the first slot that nobody writes; one that is damaged is left as it is, for verify."""
    for number in range(READINGS_AT_ONCE_MAX):
        try:
            return Writer.open(
                log,
                slot=f"v-{os.getuid()}-{number}",
                node=node,
                keys_folder=keys_folder,
                now_ns=now_ns,
                file_bytes=FILE_BYTES_MIN,
            )
        except (SlotTaken, LogCorrupt, KeysError):  # the keys of its last run were destroyed
            continue
    raise ReadingRefused(f"{log}: no slot to record this reading in is free; try again")


def leave_to_owner(log: Path, slot_folder: Path) -> None:
    """Leave what root wrote to whom ``log`` belongs to, or the router could not read its own files.

    Raises:
        ReadingRefused: it cannot be left.
    """
    owner = log.stat()
    try:
        for path in (slot_folder, *slot_folder.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise ReadingRefused(f"{slot_folder}: cannot be left to its owner: {error}") from error


def _check_words(name: str, text: str, chars_max: int) -> None:
    if not text.strip() or len(text) > chars_max or not text.isprintable():
        raise ReadingRefused(f"the {name} must be stated in 1 to {chars_max} characters")
    if _ELEVEN_DIGITS.search(text):
        raise ReadingRefused(f"the {name} holds eleven digits in a row: name no person in it")
