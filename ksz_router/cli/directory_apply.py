"""``ksz-router directory apply``: a mailbox that came as a file, applied as one that was sent."""

import contextlib
import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.progress import drawn
from ksz_router.cli.reading import Reading, add_reading
from ksz_router.config import Config
from ksz_router.config import load as load_config
from ksz_router.daemon.clock import guarded_us
from ksz_router.daemon.directory_process import own_uri
from ksz_router.daemon.mailbox_keeper import lane_of
from ksz_router.directory.lock import DirectoryBusy
from ksz_router.directory.mailbox import Fault, Mailbox, MailboxRefused, Part, Sender, State
from ksz_router.directory.mailbox_form import LINE_BYTES_MAX, Head, digest_of, head_of
from ksz_router.directory.mailboxes import Mailboxes
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.limits import mailbox_part_bytes_max
from ksz_router.model import Role
from ksz_router.privacylog.reading import leave_to_owner
from ksz_router.rulebook.generation import RulebookError
from ksz_router.tls import TlsFilesError

if TYPE_CHECKING:
    import argparse

_AGAIN_SECONDS = 0.5

Progress = Callable[[str, int, int], None]


def add(
    actions: "argparse._SubParsersAction[ArgumentParser]",
    add_json: Callable[[ArgumentParser], None],
    add_config: Callable[[ArgumentParser], None],
) -> None:
    """Declare the action and its arguments."""
    action = actions.add_parser("apply", help="apply a mailbox: a numbered file of changes")
    action.add_argument("file", type=Path, metavar="FILE", help="docs/directory-files.md says how")
    action.add_argument(
        "--answers", type=Path, metavar="DIR", help="where the verdicts go (default: beside FILE)"
    )
    action.add_argument(
        "--sha256", metavar="HEX", help="digest of FILE that its sender announced; else unchecked"
    )
    add_reading(action)
    add_config(action)
    add_json(action)


def run(arguments: Namespace) -> int:
    """Take the file in and see it applied; return the exit code.

    It may be stopped and run again at any moment: what was done is done, the rest follows, and the
    answers are the same. Where the directory program runs it does the work, and this waits.
    """
    settings = load_config(arguments.config)
    head, digest = _identified(arguments)
    log, keys = Path(settings.privacy_log.path), Path(settings.privacy_log.keys)
    reading = Reading(log, keys, settings.node.name, "directory apply", arguments)
    reading.record((), institution=head.kbo)
    mailboxes = Mailboxes(Path(settings.directory.mailboxes))
    try:
        mailbox = _taken_in(arguments.file, head, digest, mailboxes)
        with drawn() as progress:
            mailbox = _applied(mailbox, mailboxes, settings, progress)
        mailboxes.forget_lines(mailbox)  # a kill may have left them
        answers = _answers(mailbox, mailboxes, arguments)
    except (MailboxRefused, RulebookError, TlsFilesError, OSError) as error:
        print(f"ksz-router: {arguments.file}: {error}", file=sys.stderr)
        return NOT_IN_ORDER
    finally:
        mailboxes.close()
    _print(mailbox, answers, is_json=arguments.json)
    return OK if mailbox.applied == mailbox.lines else NOT_IN_ORDER


def _identified(arguments: Namespace) -> tuple[Head, bytes]:
    try:
        with arguments.file.open("rb") as stream:
            head = head_of(stream.readline(LINE_BYTES_MAX).rstrip(b"\r\n"))
        digest = digest_of(arguments.file)
    except OSError as error:
        raise UsageError(f"{arguments.file}: cannot be read: {error.strerror}") from error
    except MailboxRefused as error:
        raise UsageError(f"{arguments.file}: {error}") from error
    if arguments.sha256 is not None and arguments.sha256.lower() != digest.hex():
        raise UsageError(f"{arguments.file}: does not have the SHA-256 that was announced")
    return head, digest


def _taken_in(file: Path, head: Head, digest: bytes, mailboxes: Mailboxes) -> Mailbox:
    """Store the file as a mailbox, from where an earlier run stopped.

    Raises:
        MailboxRefused: it is not taken, or not complete; nothing of it is applied.
    """
    sender, size = Sender(head.kbo, Role(head.sector, head.type)), file.stat().st_size
    mailbox = None
    with file.open("rb") as stream:
        for part, begin in enumerate(range(0, size, mailbox_part_bytes_max), 1):
            stream.seek(begin)
            given = Part(
                number=head.number,
                file_bytes=size,
                sha256=digest,
                part_bytes=mailbox_part_bytes_max,
                part=part,
                data=stream.read(mailbox_part_bytes_max),
            )
            mailbox, _ = mailboxes.receive(sender, given, time.time_ns() // 1_000_000)
            if mailbox.state is not State.RECEIVING:
                break
    assert mailbox is not None, "a file with an identification is not empty"
    if mailbox.fault:
        raise MailboxRefused(Fault(mailbox.fault))
    return mailbox


def _applied(
    mailbox: Mailbox, mailboxes: Mailboxes, settings: Config, progress: Progress | None
) -> Mailbox:
    """Have it applied, by the directory program where that runs."""
    while mailbox.state is State.WAITING:
        try:
            writer = Writer.open(
                Path(settings.tables.directory),
                keep_days=settings.directory.keep_days,
                journal_rows_max=settings.directory.journal_rows_max,
            )
        except DirectoryBusy:
            time.sleep(_AGAIN_SECONDS)
            mailbox = _look(mailbox, mailboxes, progress)
            continue
        try:
            return _applied_here(mailbox, mailboxes, writer, settings, progress)
        finally:
            writer.close()
    return mailbox


def _applied_here(
    mailbox: Mailbox,
    mailboxes: Mailboxes,
    writer: Writer,
    settings: Config,
    progress: Progress | None,
) -> Mailbox:
    own = own_uri(Path(settings.directory.certificate))
    lane = lane_of(settings, mailboxes, writer, own, guarded_us())
    try:
        while mailbox.state is State.WAITING:
            step = lane.step()
            assert step is not None, "it waits"
            time.sleep(step.rest_s)
            mailbox = _look(mailbox, mailboxes, progress)
    finally:
        lane.close()
        if os.geteuid() == 0:
            leave_to_owner(Path(settings.privacy_log.path), lane.slot_folder)
            leave_to_owner(Path(settings.tables.directory), mailboxes.folder)
    return mailbox


def _look(mailbox: Mailbox, mailboxes: Mailboxes, progress: Progress | None) -> Mailbox:
    found = mailboxes.find(mailbox.kbo, mailbox.number)
    if found is None:
        raise DirectoryError("the mailbox is gone; take it in again")
    if progress is not None:
        progress("apply", found.lines_done, found.lines)
    return found


def _answers(mailbox: Mailbox, mailboxes: Mailboxes, arguments: Namespace) -> Path:
    """Copy the verdicts to where they are wanted, in one step."""
    folder = arguments.answers or arguments.file.parent
    source = mailboxes.answers_file(mailbox)
    target: Path = folder / source.name
    new = target.with_suffix(".new")
    new.write_bytes(source.read_bytes())
    with contextlib.suppress(OSError):
        new.chmod(0o640)
    new.replace(target)
    return target


def _print(mailbox: Mailbox, answers: Path, *, is_json: bool) -> None:
    found = {
        "sender": mailbox.kbo,
        "number": mailbox.number,
        "lines": mailbox.lines,
        "applied": mailbox.applied,
        "refused": mailbox.refused,
        "answers": str(answers),
    }
    if is_json:
        print(json.dumps(found))
    else:
        print(
            f"mailbox {mailbox.number} of {mailbox.kbo}: {mailbox.lines} lines, "
            f"{mailbox.applied} applied, {mailbox.refused} refused; {answers}"
        )
