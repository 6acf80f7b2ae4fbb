"""With which tokens a sealed file is asked for a person, a user or a ticket."""

from collections.abc import Sequence

from ksz_router.privacylog.archive.manifest import SealedFile
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
    """The tokens with which a file is asked: of its quarter, and of those it has earlier rows of.

    A row lies in the quarter in which its exchange ended, and has the tokens of the moment of each
    of its entries.
    """

    def __init__(self, keys: KeyRing, damaged: dict[str, None]) -> None:
        self._keys = keys
        self._damaged = damaged
        self._made: dict[str, Tokens | None] = {}

    def of(self, file: SealedFile) -> list[Tokens]:
        own = self._of_quarter(file.quarter)
        if own is None:
            self._damaged[
                f"{file.quarter}: its keys are gone: what is sealed of it cannot be asked for a "
                "person, a user or a ticket"
            ] = None
            return []
        if self._keys.quarter(file.quarter).id != file.key_id:
            self._damaged[f"{file.quarter}: is sealed under another key than the one there is"] = (
                None
            )
            return []
        found, quarter = [own], file.quarter
        while file.first_us * 1000 < quarter_begin_ns(quarter):
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
