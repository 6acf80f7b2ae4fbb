"""Check a directory in full: before a copied or restored one serves, and whenever in doubt."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import lmdb
from lmdb import verify

from ksz_router.days import is_day
from ksz_router.directory import folder, marks, packing
from ksz_router.directory.packing import DamagedError, DirectoryError, Record
from ksz_router.model import OPEN, Line, NumberStatus

PROBLEMS_MAX = 20

_verify_file = cast("Callable[[str], list[str]]", verify.verify)


def check(target: Path) -> list[str]:
    """Check the version that serves and admit it if it is sound; return what is wrong with it.

    First without LMDB, which a damaged file may bring to end the process: the digest that was
    taken when it was written, then LMDB's own offline audit of every page. Only then every value.
    Reads the whole file three times; no problem names a person.

    Raises:
        DirectoryError: there is nothing to check, or it is open in this process.
    """
    version_folder = folder.current(target)
    mark = marks.read_mark(version_folder)
    data = version_folder / "data.mdb"
    try:
        made = marks.make_mark(version_folder, takes_digest=bool(mark.sha256))
    except OSError as error:
        raise DirectoryError(f"{data}: cannot be read; restore it") from error
    if made.sha256 != mark.sha256:
        return [f"{data}: is not what was written there (SHA-256 differs); restore or load it"]
    try:
        problems = [f"{data}: {problem}" for problem in _verify_file(str(data))]
    except verify.VerifyError as error:
        problems = [f"{data}: {error}"]
    if problems:
        return problems[:PROBLEMS_MAX]
    # A lock file that came along with a copy knows readers of another machine.
    if made != mark:
        (version_folder / "lock.mdb").unlink(missing_ok=True)
    environment = folder.open_environment(version_folder)
    try:
        problems = _check_values(version_folder, environment)
    finally:
        environment.close()
    if not problems and made != mark:
        marks.write_mark(version_folder, made)
    return problems


def _check_values(version_folder: Path, environment: lmdb.Environment) -> list[str]:
    try:
        meta = folder.read_meta(version_folder, environment)
    except DirectoryError as error:
        return [str(error)]
    problems: list[str] = []
    numbers = lines = 0
    persons = environment.open_db(folder.PERSONS, create=False)
    with environment.begin(persons, buffers=True) as transaction:
        for key, value in transaction.cursor():
            numbers += 1
            try:
                record = packing.unpack(value)
                lines += len(record.lines)
                found = list(_wrong_in(packing.unpack_key(key), record, value, transaction))
            except DamagedError as error:
                found = [str(error)]
            problems += [f"{version_folder}: the {numbers}. number: {why}" for why in found]
            if len(problems) >= PROBLEMS_MAX:
                return problems
    if (numbers, lines) != (meta.numbers, meta.lines):
        problems.append(
            f"{version_folder}: holds {numbers} numbers and {lines} lines, "
            f"{meta.numbers} and {meta.lines} were written"
        )
    return problems


def _wrong_in(
    number: str,
    record: Record,
    value: memoryview,
    transaction: "lmdb.Transaction[memoryview]",
) -> Iterator[str]:
    if packing.pack(record) != bytes(value):
        yield "its lines are not in order"
    if not all(map(_is_sound, record.lines)):
        yield "a line is out of range"
    if (record.status is NumberStatus.DECEASED) != bool(record.deceased):
        yield "its day of death does not fit its status"
    for other in record.others:
        theirs = transaction.get(packing.pack_key(other))
        if theirs is None or number not in packing.unpack(theirs).others:
            yield "the person's numbers do not name each other"


def _is_sound(line: Line) -> bool:
    return (
        is_day(line.begin)
        and (line.end == OPEN or is_day(line.end))
        and line.begin <= line.end
        and (line.changed == 0 or is_day(line.changed))
        and line.sector <= 999
        and line.type <= 999
        and line.capacity <= 998
    )
