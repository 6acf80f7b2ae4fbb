"""The tables of one worker, and what they say of a batch: one view, one short transaction."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from ksz_router.daemon.entries import EntryMaker
from ksz_router.days import brussels_day
from ksz_router.decision import Facts, Standing, stand, standing_key
from ksz_router.directory.sectoral import Sectoral
from ksz_router.directory.snapshot import Directory
from ksz_router.directory.writer import Writer
from ksz_router.identifiers import Kbo
from ksz_router.keepers import KNOWN_SERVICE
from ksz_router.limits import standings_kept_max
from ksz_router.messages import Request
from ksz_router.model import Day, Endpoint
from ksz_router.persons import Person
from ksz_router.rights import Rights
from ksz_router.rulebook.snapshot import Snapshot, outages_at

if TYPE_CHECKING:
    from ksz_router.daemon.on_behalf import OnBehalf
    from ksz_router.daemon.session import Session


class Asker(NamedTuple):
    """As whom the keepers of sectoral directories are asked."""

    uri: str
    """Of the router's own institution."""
    framework: str
    """The legal framework of its grant."""


class _Remembered(NamedTuple):
    """What the rulebook said of a requester, and what the control made of it."""

    facts: Facts
    """Without person and outages."""
    standing: Standing


class Tables:
    """Rulebook, access rights and person directory, as they are in force in this worker.

    Args:
        store: The rulebook's store of generations.
        generation: Which of them to start with; it was verified before.
        directory: The person directory: its folder, or its writer in the process that has it open.
        entries: Is told which versions its entries rest on.
        sectoral: Holds the directories of secondary networks; one that cannot be opened is down.

    Raises:
        RulebookError, DirectoryError: a table cannot be opened; the message says what to do.
    """

    def __init__(
        self,
        store: Path,
        generation: str,
        directory: Path | Writer,
        entries: EntryMaker,
        sectoral: Path | None = None,
    ) -> None:
        self._store = store
        self._entries = entries
        self._snapshot = Snapshot.open(store, generation)
        self._rights = Rights(self._snapshot)
        self._remembered: dict[tuple[str | int | None, ...], _Remembered] = {}
        self._today: Day = 0
        """The day on which they hold."""
        self._own = Directory.open(directory) if isinstance(directory, Path) else None
        self.directory: Directory | Writer = self._own or cast("Writer", directory)
        if sectoral is None:
            assert isinstance(directory, Path), "a writer says of no folder"
            sectoral = directory.with_name("sectoral")
        self.sectoral = Sectoral(sectoral)
        self.sectoral.keep(self._snapshot.sectoral_networks)
        self.asks = self._snapshot.asks
        """Some directory of a secondary network is asked for at its keeper."""
        self.loaded_unix_s = 0.0
        """When a table last changed."""
        self._note_versions()

    @property
    def generation(self) -> str:
        """The rulebook in force."""
        return self._snapshot.generation

    def look_up(
        self, batch: Sequence[tuple["Session | OnBehalf", Request]], now_ms: int
    ) -> list[Facts]:
        """Gather what the control needs to judge each request of a batch.

        What was gathered and settled for a requester serves its next requests: only the person,
        and outages, are looked up anew each time.
        """
        today = brussels_day(now_ms * 1_000_000)
        if today != self._today:
            self._remembered.clear()
            self._today = today
        persons = self.directory.look_up([request.person for _, request in batch])
        self._entries.directory_version = self.directory.version  # which that look-up saw
        known = self._remembered.get
        found: list[Facts] = []
        for (session, request), person in zip(batch, persons, strict=True):
            remembered = known(standing_key(session.uri, request))
            if remembered is None:
                found.append(self._look_up(request, session.uri, now_ms, person))
                continue
            facts = remembered.facts
            outages = outages_at(facts.outages, now_ms) if facts.outages else ()
            found.append(
                Facts(  # by position, in the order of its fields: their names cost more
                    facts.caller, facts.member, facts.service, facts.rights, facts.grants,
                    person, facts.sources, outages, None, None, remembered.standing,
                )
            )  # fmt: skip
        return self._with_sectoral(found, batch) if self._snapshot.sectoral_networks else found

    def _with_sectoral(
        self, found: Sequence[Facts], batch: Sequence[tuple["Session | OnBehalf", Request]]
    ) -> list[Facts]:
        """Add what the directories of secondary networks hold, for those that ask for it."""
        asked = [
            (request.person, facts.standing.networks if facts.standing is not None else ())
            for facts, (_, request) in zip(found, batch, strict=True)
        ]
        held = self.sectoral.look_up(asked)
        return [
            facts if lines is None else msgspec.structs.replace(facts, sectoral=lines)
            for facts, lines in zip(found, held, strict=True)
        ]

    def _look_up(self, request: Request, uri: str, now_ms: int, person: Person | None) -> Facts:
        """Gather everything, and remember it if the requester may come back with more."""
        find_rights = self._rights.find
        facts = self._snapshot.look_up(request, uri, now_ms, find_rights=find_rights, person=person)
        standing = stand(request, facts, self._today)
        if standing.is_clear:  # so that nobody fills this with what he may not ask
            if len(self._remembered) >= standings_kept_max:
                self._remembered.clear()
            announced = self._snapshot.announced(request.service, request.version)
            rows = msgspec.structs.replace(facts, person=None, outages=announced)
            self._remembered[standing_key(uri, request)] = _Remembered(rows, standing)
        return msgspec.structs.replace(facts, standing=standing)

    def endpoints_of(self, kbo: Kbo) -> tuple[Endpoint, ...]:
        """Where a source listens."""
        institution = self._snapshot.institution(kbo)
        return institution.endpoints if institution is not None else ()

    def uri_of_source(self, service: str) -> str:
        """Under which URI the institution that has a service is known; empty: nobody has it."""
        sources = self._snapshot.sources(service, 1)
        own = self._snapshot.institution(sources[0].kbo) if sources else None
        return own.uris[0] if own is not None and own.uris else ""

    def asker(self) -> Asker | None:
        """As whom the keepers of sectoral directories are asked; None: nobody may."""
        for grant in self._snapshot.grants(KNOWN_SERVICE, 1):
            if grant.kbo is not None and (uri := self.uri_of(grant.kbo)):
                return Asker(uri, grant.framework)
        return None

    def uri_of(self, kbo: Kbo) -> str:
        """The first SAN URI of an institution; empty where it has none, or is not registered."""
        institution = self._snapshot.institution(kbo)
        return institution.uris[0] if institution is not None and institution.uris else ""

    def kbo_of(self, uri: str) -> Kbo | None:
        """Whose certificates carry this SAN URI."""
        institution = self._snapshot.institution_by_uri(uri)
        return institution.kbo if institution is not None else None

    def open(self, generation: str) -> Snapshot:
        """Open another generation beside the one in force; may be called in another thread.

        Raises:
            RulebookError: it cannot be loaded.
        """
        return Snapshot.open(self._store, generation)

    def adopt(self, new: Snapshot) -> None:
        """Go over to an opened generation, all or nothing. Called between two batches."""
        old, self._snapshot = self._snapshot, new
        self._rights, self.asks = Rights(new), new.asks
        self._remembered.clear()
        self.sectoral.keep(new.sectoral_networks)
        old.close()
        self._note_versions()

    def refresh_directory(self) -> bool:
        """Go over to a newer person directory, if one was loaded; say whether there was one."""
        self.sectoral.refresh()
        changed = self._own is not None and self._own.refresh()
        self.directory.look_up(())  # so that who asks nothing knows the newest version too
        if changed:
            self._note_versions()
        return changed

    def close(self) -> None:
        """Give the mappings back."""
        self._snapshot.close()
        if self._own is not None:
            self._own.close()
        self.sectoral.close()

    def _note_versions(self) -> None:
        self.loaded_unix_s = self._entries.now_us() / 1e6
        self._entries.generation = self._snapshot.generation
        self._entries.rights_version = self._rights.version
        self._entries.directory_version = self.directory.version
