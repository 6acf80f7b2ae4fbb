"""Check a directory in full: before a copied or restored one serves, and whenever in doubt."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import lmdb
from lmdb import verify

from ksz_router.directory import folder, marks, outbox
from ksz_router.directory.audit import Audit
from ksz_router.directory.journal_audit import journal_problems
from ksz_router.directory.lock import Lock
from ksz_router.directory.packing import DirectoryError

PROBLEMS_MAX = 20

Progress = Callable[[str, int, int], None]
"""Told now and then: what is being done, how much of it is done, how much there is."""

_PROGRESS_NUMBERS = 1 << 14

_verify_file = cast("Callable[[str], list[str]]", verify.verify)


def check(
    target: Path,
    *,
    progress: Progress | None = None,
    remark: Callable[[str], None] | None = None,
) -> list[str]:
    """Check the version that serves and admit it if it is sound; return what is wrong with it.

    First without LMDB, which a damaged file may bring to end the process: the digest that was
    taken when it was written, if it was not changed since, then LMDB's own offline audit of every
    page. Only then every value, the journal and the counts. ``remark`` is told what is sound but
    worth a look. Nothing names a person.

    Raises:
        DirectoryError: there is nothing to check, it is being changed (check a backup of it), or
            it is open in this process.
    """
    tell = progress or (lambda _what, _done, _total: None)
    version_folder = folder.current(target)
    with Lock(target):
        mark = marks.read_mark(version_folder)
        data = version_folder / "data.mdb"
        try:
            made = marks.make_mark(version_folder, takes_digest=bool(mark.sha256))
        except OSError as error:
            raise DirectoryError(f"{data}: cannot be read; restore it") from error
        if made.sha256 != mark.sha256:
            return [f"{data}: is not what was written there (SHA-256 differs); restore or load it"]
        if problems := audit_pages(data, tell):
            return problems
        if made.inode != mark.inode:  # the lock file knows readers of the original
            (version_folder / "lock.mdb").unlink(missing_ok=True)
        environment = folder.open_environment(version_folder, reads_all=True)
        try:
            problems = audit_values(version_folder, environment, tell, remark)
        finally:
            environment.close()
        if not problems and made != mark:
            marks.write_mark(version_folder, made)
        return problems


def audit_pages(data: Path, tell: Progress) -> list[str]:
    """Return what is wrong with the pages of a file, read without LMDB."""
    tell("pages", 0, 1)
    try:
        problems = [f"{data}: {problem}" for problem in _verify_file(str(data))]
    except verify.VerifyError as error:
        problems = [f"{data}: {error}"]
    tell("pages", 1, 1)
    return problems[:PROBLEMS_MAX]


def audit_values(
    version_folder: Path,
    environment: lmdb.Environment,
    tell: Progress,
    remark: Callable[[str], None] | None = None,
) -> list[str]:
    """Return what is wrong with the values of an environment whose pages are sound."""
    try:
        meta = folder.read_meta(version_folder, environment)
        persons = environment.open_db(folder.PERSONS, create=False)
        changes = environment.open_db(folder.CHANGES, create=False)
        notes = environment.open_db(folder.APPLIED, create=False)
        notices = environment.open_db(folder.NOTICES, create=False)
    except (DirectoryError, lmdb.Error) as error:
        return [str(error)]
    with environment.begin(persons, buffers=True) as transaction:
        audit = Audit(transaction)
        problems: list[str] = []
        for key, value in transaction.cursor():
            if found := audit.judge(key, value):
                which = f"{version_folder}: the {audit.numbers}. number"
                problems += [f"{which}: {why}" for why in found]
            if len(problems) >= PROBLEMS_MAX:
                return problems
            if not audit.numbers % _PROGRESS_NUMBERS:
                tell("check", audit.numbers, meta.numbers)
        if (audit.numbers, audit.lines) != (meta.numbers, meta.lines):
            problems.append(
                f"{version_folder}: holds {audit.numbers} numbers and {audit.lines} lines, "
                f"{meta.numbers} and {meta.lines} were written"
            )
        journaled = journal_problems(transaction, changes, notes, meta.version)
        problems += [f"{version_folder}: {why}" for why in journaled]
        untold = outbox.problems(transaction, notices, meta.version)
        problems += [f"{version_folder}: {why}" for why in untold]
    tell("check", meta.numbers, meta.numbers)
    if remark is not None and not problems:
        for text in audit.remarks():
            remark(text)
    return problems[:PROBLEMS_MAX]
