"""duckdb over sealed files: the rows of given files that fit a condition, the earliest of them.

Where only the rows of few keys can fit, those are taken out of the files first, and it asks them.

The engine reads the files that it is told by their full names, and nothing else: no pattern, no
extension, no network. It writes nothing: what it would put aside on a disk is personal data.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import duckdb
import pyarrow as pa

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.keyed import ArchiveUnreadable
from ksz_router.privacylog.archive.listing import Listing
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.taken import Keys, Place, announce_end, find, take
from ksz_router.privacylog.tail import Tail

THREADS: Final = 2
MEMORY: Final = "1GB"
FILES_AT_ONCE: Final = 64
"""Of one duckdb query: bounds the memory, and lets a long question stop and show how far it is."""

_PATTERN: Final = frozenset("*?[")

Values: TypeAlias = tuple[object, ...]
"""A row: what was selected, then the columns of ``_ORDER``."""

Progress: TypeAlias = Callable[[int, int], None]
"""How many files were read, and of how many."""

_NAMES_USER: Final = '"user" IS NOT NULL AS names_user'
_ORDER = ("at_us", "exchange", "service", "reader", "purpose", "names_user", "seq")
"""As ``question.Order``, then the leaf; no exchange id comes first."""


class SearchFailed(PrivacyLogError):
    """The sealed files cannot be asked. The message says why, and holds no condition."""


class Part(NamedTuple):
    """A file, and the condition for its rows."""

    file: SealedFile
    path: Path
    where: str
    wanted: Keys | None = None
    """Few rows of it: those that have these keys too."""

    @property
    def condition(self) -> str:
        """The whole of it."""
        if self.wanted is None:
            return self.where
        keys = any_of(self.wanted.column, [blob(key) for key in sorted(self.wanted.keys)])
        return f"{keys} AND {self.where}"


def text(value: str) -> str:
    """Return a literal for a condition."""
    return "'" + value.replace("'", "''") + "'"


def blob(value: bytes) -> str:
    """Return a literal for a condition."""
    return f"unhex('{value.hex()}')"


def any_of(column: str, literals: Sequence[str]) -> str:
    """Return the condition that a column has one of some values. One alone prunes best."""
    if len(literals) == 1:
        return f"{column} = {literals[0]}"
    return f"{column} IN ({', '.join(literals)})" if literals else "false"


class Engine:
    """A connection to duckdb, kept for many questions: it remembers what files are made of.

    Attributes:
        listing: Of the archive, so that it is remembered too.
        tail: Of the write-ahead files that are not sealed.
        threads: That look into several at once.
    """

    def __init__(self, archive: Path) -> None:
        if _PATTERN & set(str(archive)):
            raise SearchFailed(f"{archive}: a path with *, ? or [ cannot be asked; move it")
        self.listing = Listing(archive)
        self.tail = Tail()
        self.threads = ThreadPoolExecutor(THREADS)
        self._connection = duckdb.connect(
            config={
                "threads": THREADS,
                "memory_limit": MEMORY,
                "temp_directory": "",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
            }
        )
        folder = text(str(archive / "sealed"))
        for setting in (
            "parquet_metadata_cache = true",
            f"allowed_directories = [{folder}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")

    def close(self) -> None:
        self.threads.shutdown()
        self._connection.close()

    def earliest(
        self,
        parts: Sequence[Part],
        selected: Sequence[str],
        limit: int,
        damaged: dict[str, None],
        progress: Progress | None = None,
    ) -> list[Values]:
        """Return the earliest rows that fit.

        Args:
            parts: Files and conditions.
            selected: Columns or expressions of the rows.
            limit: How many rows.
            damaged: Gets a word on each file that cannot be read; the others are asked.
            progress: Is told after each of several queries.
        """
        sound = [part for part in parts if _is_there(part, damaged)]
        sound.sort(key=lambda part: part.file.first_us)
        found: list[Values] = []
        for at in range(0, len(sound), FILES_AT_ONCE):
            batch = sound[at : at + FILES_AT_ONCE]
            if len(found) == limit and _time(found[-1]) < batch[0].file.first_us:
                break  # all that follows is later than what is asked for
            found += self._ask(batch, selected, limit, damaged)
            found.sort(key=_order)
            del found[limit:]
            if progress is not None:
                progress(min(at + FILES_AT_ONCE, len(sound)), len(sound))
        return found

    def _ask(
        self,
        parts: Sequence[Part],
        selected: Sequence[str],
        limit: int,
        damaged: dict[str, None],
    ) -> list[Values]:
        tables, rest = self._take(parts, damaged)
        found = self._of_tables(tables, selected, limit) if tables else []
        return found + self._of_files(rest, selected, limit, damaged) if rest else found

    def _take(
        self, parts: Sequence[Part], damaged: dict[str, None]
    ) -> tuple[dict[str, list[pa.Table]], list[Part]]:
        """Return the rows of keys, by the condition for the others; and the parts left to ask."""
        for part in parts:
            if part.wanted is not None:
                announce_end(part.path, part.file.bytes)
        tables: dict[str, list[pa.Table]] = {}
        rest = []
        places = list(self.threads.map(_found, parts))  # all, before any is unpacked
        results = self.threads.map(_taken, places)
        places.clear()  # what a file is made of is given back by the thread that read it
        for part, result in zip(parts, results, strict=True):
            if isinstance(result, ArchiveUnreadable):
                damaged[str(result)] = None
            elif result is None:
                rest.append(part)
            elif result:
                tables.setdefault(part.where, []).extend(result)
        return tables, rest

    def _of_tables(
        self, tables: dict[str, list[pa.Table]], selected: Sequence[str], limit: int
    ) -> list[Values]:
        sources = []
        for number, (where, some) in enumerate(tables.items()):
            table = pa.concat_tables(some).combine_chunks()  # forty pieces cost more to scan
            self._connection.register(f"taken{number}", table)
            sources.append((f"taken{number}", where))
        try:
            return self._connection.execute(_query(sources, selected, limit)).fetchall()
        finally:
            for name, _ in sources:
                self._connection.unregister(name)

    def _of_files(
        self,
        parts: Sequence[Part],
        selected: Sequence[str],
        limit: int,
        damaged: dict[str, None],
    ) -> list[Values]:
        query = _query(_by_condition(parts), selected, limit)
        try:
            return self._connection.execute(query).fetchall()
        except duckdb.OutOfMemoryException:
            raise SearchFailed("the question takes too much memory: ask for less time") from None
        except duckdb.Error as error:
            if len(parts) == 1:
                # The words of the engine may repeat the condition: they are left out.
                damaged[f"{parts[0].path}: {type(error).__name__}: damaged; restore it"] = None
                return []
        return [row for part in parts for row in self._of_files((part,), selected, limit, damaged)]


def _found(part: Part) -> Place | ArchiveUnreadable | None:
    """Return where the rows of a part are; None where a query is to look for them."""
    if part.wanted is None:
        return None
    try:
        return find(part.path, part.wanted)
    except ArchiveUnreadable as error:
        return error


def _taken(place: Place | ArchiveUnreadable | None) -> list[pa.Table] | ArchiveUnreadable | None:
    if not isinstance(place, Place):
        return place
    try:
        return take(place)
    except ArchiveUnreadable as error:
        return error


def _query(sources: Iterable[tuple[str, str]], selected: Sequence[str], limit: int) -> str:
    # Conditions and paths are made by the callers of literals that text() and blob() quote.
    others = (name for name in _ORDER if name not in (*selected, "names_user"))
    columns = ", ".join([*selected, *others, _NAMES_USER])
    tables = " UNION ALL ".join(
        f"SELECT {columns} FROM {source} WHERE {where}"  # noqa: S608
        for source, where in sources
    )
    order = ", ".join(f"{name} NULLS FIRST" for name in _ORDER)
    shown = ", ".join([*selected, *_ORDER])
    return f"SELECT {shown} FROM ({tables}) ORDER BY {order} LIMIT {limit}"  # noqa: S608


def _by_condition(parts: Sequence[Part]) -> Iterator[tuple[str, str]]:
    """Yield what is read, and the condition for its rows."""
    found: dict[str, list[str]] = {}
    for part in parts:
        found.setdefault(part.condition, []).append(text(str(part.path)))
    for where, paths in found.items():
        yield f"read_parquet([{', '.join(paths)}], hive_partitioning = false)", where


def _is_there(part: Part, damaged: dict[str, None]) -> bool:
    try:
        size = part.path.stat().st_size
    except OSError as error:
        damaged[f"{part.path}: cannot be read: {error.strerror}"] = None
        return False
    if size != part.file.bytes:
        damaged[f"{part.path}: is {size} bytes long, not {part.file.bytes}; restore it"] = None
    return size == part.file.bytes


def _order(row: Values) -> Values:
    at_us, exchange, *rest = row[-len(_ORDER) :]
    return at_us, exchange or b"", *rest


def _time(row: Values) -> int:
    at_us = row[-len(_ORDER)]
    assert isinstance(at_us, int)
    return at_us
