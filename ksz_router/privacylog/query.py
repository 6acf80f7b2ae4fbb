"""Who asked what about whom: find exchanges in the write-ahead files alone, live ones too.

What is damaged is named beside the rows, never left out in silence. Where a log is sealed,
``archive.assemble`` asks the sealed files and these.
"""

from pathlib import Path

from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.live import Live
from ksz_router.privacylog.question import LIMIT_MAX, Asked, Found, Position, page_of, wanted
from ksz_router.privacylog.rule import Rule


def query(
    folder: Path,
    keys_folder: Path,
    asked: Asked,
    *,
    limit: int = 1000,
    after: Position | None = None,
) -> Found:
    """Return the earliest ``limit`` rows (1 to ``LIMIT_MAX``) that fit, behind a position.

    Raises:
        PrivacyLogError: there is no log in ``folder``.
    """
    assert 1 <= limit <= LIMIT_MAX
    log = HotLog(folder, KeyRing(keys_folder))
    rows = Live(log).rows(Rule(asked, log.tokens()), wanted(limit, after), after)
    return page_of(rows, limit, after, log.damaged)
