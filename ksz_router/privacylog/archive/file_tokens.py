"""With which tokens a sealed file is asked for a person, a user or a ticket."""

from collections.abc import Sequence

from ksz_router.privacylog.archive.listing import Files
from ksz_router.privacylog.entry import parse_head
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import (
    KeyRing,
    KeysError,
    Tokens,
    quarter_before,
    quarter_begin_ns,
    quarter_of,
)
from ksz_router.privacylog.live import Given


class TokensOf:
    """The tokens a quarter is asked with: its own, and those of quarters it has earlier rows of.

    A row lies in the quarter in which its exchange ended, and has the tokens of the moment of each
    of its entries.
    """

    def __init__(self, keys: KeyRing, damaged: dict[str, None]) -> None:
        self._keys = keys
        self._damaged = damaged
        self._made: dict[str, Tokens | None] = {}

    def of(self, files: Files) -> list[Tokens]:
        """Return those with which the files of a quarter are asked; none if its keys are gone."""
        own = self._of_quarter(files.quarter)
        if own is None:
            self._damaged[
                f"{files.quarter}: its keys are gone: what is sealed of it cannot be asked for a "
                "person, a user or a ticket"
            ] = None
            return []
        key_id = self._keys.quarter(files.quarter).id
        if files.key_ids != {key_id}:
            what = f"{files.quarter}: is sealed under another key than the one there is"
            self._damaged[what] = None
        if key_id not in files.key_ids:
            return []
        found, quarter = [own], files.quarter
        while files.first_us * 1000 < quarter_begin_ns(quarter):
            quarter = quarter_before(quarter)
            before = self._of_quarter(quarter)
            if before is None:
                break
            found.append(before)
        return found

    def users(self, user: str) -> set[bytes]:
        """Return the tokens of a user in the quarters that were asked."""
        return {tokens.user(user) for tokens in self._made.values() if tokens is not None}

    def live(self, log: HotLog, given: Sequence[Given]) -> list[Tokens]:
        """Return those of the files of a log that are read, and of entries that are given."""
        moments = {parse_head(each.record).at_us * 1000 for each in given}
        made = map(self._of_quarter, {quarter_of(moment) for moment in moments})
        return [*log.tokens(), *(tokens for tokens in made if tokens is not None)]

    def _of_quarter(self, quarter: str) -> Tokens | None:
        if quarter not in self._made:
            try:
                self._made[quarter] = Tokens(self._keys.quarter(quarter))
            except KeysError:
                self._made[quarter] = None
        return self._made[quarter]
