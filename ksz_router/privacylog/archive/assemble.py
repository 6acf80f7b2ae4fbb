"""Who asked what about whom: the sealed files, what is carried over, and the write-ahead files.

Nothing is found twice and nothing missed while the sealer goes on. The newest manifest is read
first: it says which files there are, and from where on each slot is not sealed. A question that
meets another one while it lists what there is, or misses a file and then sees another, begins
again.
"""

from pathlib import Path
from typing import Final

from ksz_router.privacylog.archive.chain import newest
from ksz_router.privacylog.archive.engine import Engine, Progress
from ksz_router.privacylog.archive.manifest import Manifest
from ksz_router.privacylog.archive.search import Sealed
from ksz_router.privacylog.frame import Place
from ksz_router.privacylog.hotlog import Begin, HotLog
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.live import Live
from ksz_router.privacylog.query import query as query_live
from ksz_router.privacylog.question import LIMIT_MAX, Asked, Found, Position, page_of, wanted
from ksz_router.privacylog.rows import Row
from ksz_router.privacylog.rule import Rule

_TRIES: Final = 5


def query(
    folder: Path,
    keys_folder: Path,
    archive: Path,
    asked: Asked,
    *,
    limit: int = 1000,
    after: Position | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Found:
    """Return the earliest ``limit`` rows (1 to ``LIMIT_MAX``) that fit, behind a position.

    Args:
        folder: Of the write-ahead files.
        keys_folder: Of the keys of their quarters, and of those that are sealed.
        archive: What is sealed; it may hold nothing yet.
        asked: What.
        limit: Of the rows.
        after: Where the page before ended.
        engine: To ask many questions of one archive; else one is made for this.
        progress: Is told how many sealed files were read, and of how many.

    Raises:
        PrivacyLogError: there is no log in ``folder``, the chain of manifests is damaged, or the
            question takes too much.
    """
    assert 1 <= limit <= LIMIT_MAX
    by_key = asked.exchange is not None or asked.ticket is not None
    own = engine or Engine(archive)
    keys = KeyRing(keys_folder)
    try:
        for left in reversed(range(_TRIES)):
            manifest = newest(archive)
            if manifest is None:
                return query_live(folder, keys_folder, asked, limit=limit, after=after)
            log = HotLog(folder, keys, _begins(manifest), own.tail)
            kinds = "ck" if by_key else "cpu" if asked.persons else "cu"
            sealed = Sealed(
                archive, kinds, keys=keys, listing=own.listing, engine=own, damaged=log.damaged,
                progress=progress,
            )  # fmt: skip
            if left and not _is_newest(archive, manifest):
                continue
            rows = (_by_key if by_key else _by_rows)(
                asked, log, sealed, wanted(limit, after), after
            )
            if not log.damaged or not left or _is_newest(archive, manifest):
                return page_of(rows, limit, after, log.damaged)
        raise AssertionError("the last try returns")
    finally:
        if engine is None:
            own.close()


def _by_rows(
    asked: Asked, log: HotLog, sealed: Sealed, count: int, after: Position | None
) -> list[Row]:
    given = sealed.carried()
    live = Live(log, given)
    rows = sealed.rows(asked, count, after)
    live.extend(rows)
    return rows + live.rows(Rule(asked, sealed.tokens(asked, log, given)), count, after)


def _by_key(
    asked: Asked, log: HotLog, sealed: Sealed, count: int, after: Position | None
) -> list[Row]:
    """Look for few entries, in the truth: what is carried over is there too."""
    entries = {(each.slot, each.number): each for each in sealed.entries(asked)}
    entries |= {(each.slot, each.number): each for each in sealed.carried()}
    given = [entries[place] for place in sorted(entries)]
    return Live(log, given).rows(Rule(asked, sealed.tokens(asked, log, given)), count, after)


def _is_newest(archive: Path, manifest: Manifest) -> bool:
    found = newest(archive)
    return found is not None and found.number == manifest.number


def _begins(manifest: Manifest) -> dict[str, Begin]:
    return {
        slot: Begin(
            cursor.file,
            Place(
                cursor.offset,
                cursor.frame,
                cursor.crc,
                cursor.next_record,
                is_last=cursor.is_last,
            ),
        )
        for slot, cursor in manifest.slots.items()
    }
