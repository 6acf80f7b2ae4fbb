"""The sealed part of a log, as of one manifest: which files are asked, and what they say.

Files are picked by the catalogs: by kind, time, and the least and greatest key in them. A person or
a user has another token in each quarter, so each file is asked with the tokens of its own. What
cannot be read, and quarters whose keys are gone, are named in ``damaged``, and the rest is asked.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import msgspec

from ksz_router.privacylog.archive import conditions, keyed
from ksz_router.privacylog.archive.engine import (
    Engine,
    Part,
    Progress,
    SearchFailed,
    any_of,
    blob,
    text,
)
from ksz_router.privacylog.archive.file_tokens import TokensOf
from ksz_router.privacylog.archive.keyed import ArchiveUnreadable, SealedEntry
from ksz_router.privacylog.archive.listing import Files, Listing, Window, meets
from ksz_router.privacylog.archive.manifest import Carried, SealedFile
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.sealed_rows import (
    COLUMNS,
    LATER,
    Hit,
    Later,
    hit_of,
)
from ksz_router.privacylog.archive.taken import Keys
from ksz_router.privacylog.entry import OUTCOME_WITHIN_US
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing, Tokens
from ksz_router.privacylog.live import Given
from ksz_router.privacylog.question import FOREVER_US, LIMIT_MAX, Asked, Position
from ksz_router.privacylog.rows import Row, may_be_followed

_LATE_US: Final = 2 * OUTCOME_WITHIN_US
"""A later outcome comes this long after its request at most."""

_LOOKED_AT_MAX: Final = 4_000_000

_decode_carried = msgspec.msgpack.Decoder(list[Carried]).decode

_Found = TypeVar("_Found")

_Leaf: TypeAlias = tuple[str, int]
"""Quarter, and index."""


class Sealed:
    """What the sealed files hold.

    Args:
        archive: Folder.
        kinds: Of the files that are asked, but truth.
        keys: Of the quarters.
        listing: Of the files.
        engine: That reads the files.
        damaged: Gets a word on all that could not be read.
        progress: Is told how many files were read.
    """

    def __init__(
        self,
        archive: Path,
        kinds: str,
        *,
        keys: KeyRing,
        listing: Listing,
        engine: Engine,
        damaged: dict[str, None],
        progress: Progress | None = None,
    ) -> None:
        self._archive = archive
        self._engine = engine
        self._damaged = damaged
        self._progress = progress
        self._tokens = TokensOf(keys, damaged)
        self._listing = listing
        listing.update(kinds)

    def carried(self) -> list[Given]:
        """Return the entries of exchanges that were not over when they were sealed."""
        held = (file for files in self._listing.of("c") for file in files.all)
        file = max(held, key=lambda file: file.end_leaf, default=None)
        if file is None:
            return []
        path = file_of(self._archive, file.path)
        try:
            data = path.read_bytes()
        except OSError:
            data = b""
        if sha256(data).hexdigest() != file.sha256:
            self._damaged[f"{path}: missing or damaged; restore it"] = None
            return []
        return [Given(each.slot, each.number, each.record) for each in _decode_carried(data)]

    def tokens(self, asked: Asked, log: HotLog, given: Sequence[Given]) -> list[Tokens]:
        """Return the tokens with which what is not sealed is asked, and these entries of it."""
        needed = asked.persons or asked.user is not None or asked.ticket is not None
        return self._tokens.live(log, given) if needed else []

    def rows(self, asked: Asked, count: int, after: Position | None) -> list[Row]:
        """Return the earliest ``count`` rows that fit, from a position on, in their order."""
        where = conditions.fits_first(asked, after)
        window = (asked.from_us if after is None else after.at_us, asked.to_us)
        if asked.persons:
            parts = self._concerning(asked, where, [window])
        else:
            parts = self._used(asked, lambda t: conditions.used(asked, t), where, [window])
        keep = self._of_user if asked.persons and asked.user is not None else _all
        hits = self._distinct(parts, count, lambda found: keep(asked, found))
        self._add_later(asked, [hit.row for hit in hits])
        return [hit.row for hit in hits]

    def entries(self, asked: Asked) -> list[Given]:
        """Return all entries of the exchange that is asked for, or of those under the ticket."""
        if asked.exchange is not None:
            exchanges = {asked.exchange}
        else:
            assert asked.ticket is not None
            assert asked.institution is not None
            kbo, ticket = asked.institution, asked.ticket
            leaves = self._leaves(
                lambda files: {t.ticket(kbo, ticket) for t in self._tokens.of(files)},
                (asked.from_us, asked.to_us),
            )
            exchanges = set(self._at(leaves, keyed.exchanges_in))
        since_us, until_us = keyed.times_of(exchanges)
        found = self._all_of(exchanges, since_us, until_us + _LATE_US)
        if not keyed.settled(exchanges, found):  # else nothing follows later
            found = self._all_of(exchanges, since_us, FOREVER_US)
        return [Given(each.slot, each.number, each.record) for each in found]

    def _all_of(self, exchanges: set[bytes], from_us: int, to_us: int) -> list[SealedEntry]:
        return self._at(self._leaves(lambda _: exchanges, (from_us, to_us)), keyed.entries_in)

    def _distinct(
        self,
        parts: Sequence[Part],
        count: int,
        keep: Callable[[list[Hit]], list[Hit]],
    ) -> list[Hit]:
        """Return the earliest ``count`` rows that are kept, each once."""
        limit = count
        while True:
            found = self._engine.earliest(parts, COLUMNS, limit, self._damaged, self._progress)
            hits = keep(list({hit.seq: hit for hit in map(hit_of, found)}.values()))
            if len(hits) >= count or len(found) < limit:
                return hits[:count]
            if limit >= _LOOKED_AT_MAX:
                raise SearchFailed("too many exchanges to look at: ask for less time")
            limit *= 4

    def _of_user(self, asked: Asked, hits: list[Hit]) -> list[Hit]:
        """Return which of a person's rows the user asked for or supplied.

        Who supplied is not in the rows by person: it is looked for in those by use.
        """
        assert asked.user is not None
        users = self._tokens.users(asked.user)
        asking = {
            hit.seq
            for hit in hits
            if (hit.user in users or hit.row.application == asked.user)
            and asked.institution in (None, hit.row.requester, hit.row.acting, hit.row.final_client)
        }
        others = [hit for hit in hits if hit.seq not in asking]
        sent = {kbo for hit in others for kbo in hit.row.destinations}
        if asked.institution is not None:
            sent &= {asked.institution}
        if sent:
            seqs = any_of("seq", [str(hit.seq) for hit in others])
            where = f"{seqs} AND {any_of('institution', [text(kbo) for kbo in sorted(sent)])}"
            window = (others[0].row.at_us, others[-1].row.at_us + 1)
            parts = self._used(
                asked, lambda t: conditions.is_member(asked, t), where, [window], sent
            )
            limit = len(others) * len(sent) * 4
            found = self._engine.earliest(parts, ("seq",), limit, self._damaged)
            asking |= {seq for seq, *_ in found if isinstance(seq, int)}
        return [hit for hit in hits if hit.seq in asking]

    def _add_later(self, asked: Asked, rows: Sequence[Row]) -> None:
        """Add later outcomes: lines of their own, of the person, and of the requester."""
        followed = [row for row in rows if may_be_followed(row)]
        elsewhere = [
            row for row in followed if not asked.persons or row.replaced or row.further_persons
        ]
        parts: list[Part] = []
        if asked.persons and followed:
            parts += self._concerning(asked, _of(followed), _windows(followed))
        if elsewhere:
            requesters = {row.requester or "" for row in elsewhere}
            one = any_of("institution", [text(kbo) for kbo in sorted(requesters)])
            parts += self._used(
                None, lambda _: one, _of(elsewhere), _windows(elsewhere), requesters
            )
        found = self._engine.earliest(parts, LATER, LIMIT_MAX * 10, self._damaged)
        of_exchange = {row.exchange: row for row in rows}
        later = [
            msgspec.convert(values[: len(LATER)], Later, builtin_types=(bytes,)) for values in found
        ]
        for line in {line.seq: line for line in later}.values():
            line.add_to(of_exchange[line.exchange])

    def _concerning(self, asked: Asked, where: str, windows: Sequence[Window]) -> list[Part]:
        def keys_of(files: Files) -> set[bytes]:
            tokens = self._tokens.of(files)
            return {t.person(number.digits) for t in tokens for number in asked.persons}

        return [
            self._part(file, where, Keys("person", here))
            for _, file, here in self._listing.of_keys("p", keys_of, windows)
        ]

    def _used(
        self,
        asked: Asked | None,
        condition: Callable[[Sequence[Tokens]], str],
        where: str,
        windows: Sequence[Window],
        institutions: Iterable[str] = (),
    ) -> list[Part]:
        by_user = asked is not None and asked.user is not None
        named = set(institutions)
        if asked is not None and asked.institution is not None:
            named = {asked.institution}
        parts = []
        for files in self._listing.of_time("u", windows):
            tokens = self._tokens.of(files) if by_user else []
            if tokens or not by_user:
                here = f"{condition(tokens)} AND {where}"
                held = (file for name in named for file in files.of_key(name))
                those = {file.path: file for file in (held if named else files.all)}
                parts += [self._part(file, here) for file in those.values() if meets(file, windows)]
        return parts

    def _leaves(self, keys_of: Callable[[Files], Collection[bytes]], window: Window) -> list[_Leaf]:
        """Return where the entries with these keys are."""
        leaves = set[_Leaf]()

        def look(held: tuple[str, SealedFile, list[bytes]]) -> None:
            quarter, file, keys = held
            path = file_of(self._archive, file.path)
            try:
                seqs = keyed.seqs_in(path, keys)
            except ArchiveUnreadable as error:
                self._damaged[str(error)] = None
            else:
                leaves.update((quarter, seq) for seq in seqs)

        list(self._engine.threads.map(look, self._listing.of_keys("k", keys_of, [window])))
        return sorted(leaves)

    def _at(
        self, leaves: Sequence[_Leaf], read: Callable[[Path, int, Collection[int]], list[_Found]]
    ) -> list[_Found]:
        """Return what the files of truth hold at leaves."""
        by_file: dict[str, tuple[SealedFile, list[int]]] = {}
        for quarter, leaf in leaves:
            file = self._listing.truth(quarter).of_leaf(leaf)
            if file is not None:
                by_file.setdefault(file.path, (file, []))[1].append(leaf)
        found: list[_Found] = []
        for file, here in by_file.values():
            try:
                found += read(file_of(self._archive, file.path), file.first_leaf, here)
            except ArchiveUnreadable as error:
                self._damaged[str(error)] = None
        return found

    def _part(self, file: SealedFile, where: str, wanted: Keys | None = None) -> Part:
        return Part(file, file_of(self._archive, file.path), where, wanted)


def _all(_: Asked, hits: list[Hit]) -> list[Hit]:
    return hits


def _windows(rows: Sequence[Row]) -> list[Window]:
    """Return when something may have followed."""
    return [(row.at_us, row.at_us + _LATE_US if row.outcomes else FOREVER_US) for row in rows]


def _of(rows: Sequence[Row]) -> str:
    """Return the condition for lines of their own of these exchanges."""
    exchanges = [blob(row.exchange) for row in rows if row.exchange is not None]
    since_us = min(row.at_us for row in rows)
    return f"NOT {conditions.BEGIN} AND at_us >= {since_us} AND {any_of('exchange', exchanges)}"
