"""Read a generation: facts for the control.

Opening reads and decodes every row once, so that damage shows there and nowhere else. What is
small (institutions, services, grants, data availability, outages) then stays in memory, bounded by
the generation; access rights, one row a user, stay in LMDB and are memoised by rows that exist, so
that no peer can make memory grow. Nothing here judges.
"""

from collections.abc import Callable
from pathlib import Path

import lmdb
import msgspec

from ksz_router.decision.case import Facts
from ksz_router.identifiers import Kbo
from ksz_router.messages import Request
from ksz_router.model import AccessRight, Availability, Grant, Institution, Kind, Outage, Service
from ksz_router.persons import Person
from ksz_router.rulebook.generation import (
    RightRows,
    RulebookError,
    ServiceRows,
    damaged_rows,
    folder_of,
    read_manifest,
    right_key,
)

DAMAGE = (
    msgspec.MsgspecError,
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.NotFoundError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)
"""What LMDB and the decoder raise where a data file is not what was written."""

FindRights = Callable[[Kbo, str | None, str | None], tuple[AccessRight, ...]]
"""KBO number, user, application → rows; see :meth:`ksz_router.rights.Rights.find`."""

_UNREGISTERED = Facts(caller=None)

_decode_institution = msgspec.msgpack.Decoder(Institution).decode
_decode_service = msgspec.msgpack.Decoder(ServiceRows).decode
_decode_outages = msgspec.msgpack.Decoder(tuple[Outage, ...]).decode
_decode_rights = msgspec.msgpack.Decoder(RightRows).decode


class _Table:
    """One service and version with everything that is looked up by it."""

    __slots__ = ("all_grants", "grants", "outages", "service", "sources")

    def __init__(self, rows: ServiceRows, outages: tuple[Outage, ...]) -> None:
        self.service = rows.service
        self.sources = rows.sources
        self.outages = outages
        self.all_grants = rows.grants
        held: dict[tuple[str | int, ...], list[Grant]] = {}
        for grant in rows.grants:
            holder: tuple[str | int, ...]
            if grant.kbo is not None:
                holder = (grant.framework, grant.kbo)
            elif grant.role is not None:
                holder = (grant.framework, grant.role.sector, grant.role.type)
            else:
                continue
            held.setdefault(holder, []).append(grant)
        self.grants = {holder: tuple(grants) for holder, grants in held.items()}


class Snapshot:
    """One generation, open for reading. Make it with :meth:`open`, after the process started."""

    def __init__(self, generation: str, environment: lmdb.Environment) -> None:
        """Decode every row of an environment.

        Raises:
            lmdb.Error: the tables are not there or cannot be walked.
            msgspec.MsgspecError: a row is not what it should be.
        """
        self.generation = generation
        self._environment = environment
        self._transaction = environment.begin()
        self._rights_table = environment.open_db(b"rights", txn=self._transaction, create=False)
        self._rights: dict[bytes, tuple[AccessRight, ...]] = {}
        institutions = [_decode_institution(value) for _, value in self._walk(b"institutions")]
        outages = [row for _, value in self._walk(b"outages") for row in _decode_outages(value)]
        services = [_decode_service(value) for _, value in self._walk(b"services")]
        for key, value in self._walk(b"rights"):
            row = _decode_rights(value)
            if right_key(row.kbo, row.holder) != key:
                raise msgspec.ValidationError("a row stands under another row's key")
        self._by_kbo = {row.kbo: row for row in institutions}
        self._by_uri = {uri: row for row in institutions for uri in row.uris}
        self.sectoral_networks = tuple(
            sorted(
                {
                    row.secondary_network
                    for row in institutions
                    if row.is_sectoral and row.keeper is None
                }
            )
        )
        """Secondary networks whose own directory is hosted here."""
        self.asks = any(row.keeper is not None for row in institutions)
        """The directory of another one is kept at its managing institution."""
        self._tables = {
            (rows.service.name, rows.service.version): _Table(
                rows, tuple(o for o in outages if o.service in ("", rows.service.name))
            )
            for rows in services
        }

    @classmethod
    def open(cls, store: Path, name: str) -> "Snapshot":
        """Open a generation that was verified before. Never across a fork, once per process.

        Raises:
            GenerationUnknownError: the store does not have it.
            GenerationDamagedError: a file is not what the manifest says, or cannot be decoded.
            RulebookError: the system refuses, or this process has it open already.
        """
        folder = folder_of(store, name)
        read_manifest(folder)
        environment = None
        try:
            # Nobody writes a generation, so no lock file and one transaction for its whole life.
            environment = lmdb.open(
                str(folder), readonly=True, create=False, lock=False, max_dbs=4, lib_version=0
            )
            return cls(name, environment)
        except (lmdb.Error, msgspec.MsgspecError, OSError) as error:
            if environment is not None:
                environment.close()
            if isinstance(error, DAMAGE):
                raise damaged_rows(folder, error) from error
            # The file is whole: open twice in one process, no memory, no descriptors.
            raise RulebookError(
                f"{folder}: cannot be opened ({error}); each process opens a generation once; "
                "check the limits on memory and open files"
            ) from error

    def close(self) -> None:
        """Give the mapping back; nothing may be asked after it."""
        self._transaction.abort()
        self._environment.close()

    def _walk(self, table: bytes) -> lmdb.Cursor:
        database = self._environment.open_db(table, txn=self._transaction, create=False)
        return self._transaction.cursor(db=database)

    def look_up(
        self,
        request: Request,
        uri: str,
        now_ms: int,
        *,
        find_rights: FindRights | None = None,
        person: Person | None = None,
    ) -> Facts:
        """Gather what the control needs to judge a request.

        Args:
            request: As decoded; nothing in it is trusted.
            uri: The SAN URI of the caller's certificate.
            now_ms: Unix milliseconds, for announced outages.
            find_rights: The access-right table; without it no right is found.
            person: What the directory says of ``request.person``.
        """
        caller = self._by_uri.get(uri)
        if caller is None:
            return _UNREGISTERED
        acting, member = caller, None
        named = request.member if request.member is not None else request.kbo
        if named is not None and named != caller.kbo:
            member = self._by_kbo.get(Kbo(named))
            if member is not None:
                acting = member
        table = self._tables.get((request.service, request.version))
        if table is None:
            return Facts(caller=caller, member=member)
        rights: tuple[AccessRight, ...] = ()
        if find_rights is not None and table.service.kind is not Kind.TEST:
            rights = find_rights(caller.kbo, request.user, request.application)
        outages = table.outages
        if outages:
            outages = outages_at(outages, now_ms)
        return Facts(
            caller=caller,
            member=member,
            service=table.service,
            rights=rights,
            grants=_grants(table, request, acting),
            person=person,
            sources=table.sources,
            outages=outages,
        )

    def institution_by_uri(self, uri: str) -> Institution | None:
        """Return the institution whose certificates carry this exact SAN URI."""
        return self._by_uri.get(uri)

    def institution(self, kbo: str) -> Institution | None:
        """Return the institution of a KBO number."""
        return self._by_kbo.get(Kbo(kbo))

    def institutions(self) -> tuple[Institution, ...]:
        """Return all institutions, by KBO number."""
        return tuple(self._by_kbo.values())

    def services(self) -> tuple[Service, ...]:
        """Return all services, by name and version."""
        return tuple(table.service for table in self._tables.values())

    def service(self, name: str, version: int) -> Service | None:
        """Return a service."""
        table = self._tables.get((name, version))
        return table.service if table is not None else None

    def grants(self, name: str, version: int) -> tuple[Grant, ...]:
        """Return the grants to request or send a service, of every holder."""
        table = self._tables.get((name, version))
        return table.all_grants if table is not None else ()

    def sources(self, name: str, version: int) -> tuple[Availability, ...]:
        """Return who has the data of a service, or receives it, in the order of asking."""
        table = self._tables.get((name, version))
        return table.sources if table is not None else ()

    def outages(self, service: str, now_ms: int) -> tuple[Outage, ...]:
        """Return the announced outages that hold at a moment for a service."""
        rows = next((t.outages for (name, _), t in self._tables.items() if name == service), ())
        return outages_at(rows, now_ms)

    def announced(self, name: str, version: int) -> tuple[Outage, ...]:
        """Return the outages that are announced for a service, past and future ones too."""
        table = self._tables.get((name, version))
        return table.outages if table is not None else ()

    def rights(self, kbo: str, holder: str) -> tuple[AccessRight, ...]:
        """Return the rights under one key: ``holder`` is ``u`` + user key or ``a`` + program.

        ``holder`` is ASCII and short; the caller sees to that.
        """
        key = right_key(kbo, holder)
        found = self._rights.get(key)
        if found is None:
            value = self._transaction.get(key, db=self._rights_table)
            if value is None:
                return ()
            found = self._rights[key] = _decode_rights(value).rights
        return found


def outages_at(rows: tuple[Outage, ...], now_ms: int) -> tuple[Outage, ...]:
    """Return those of the announced outages that hold at a moment."""
    return tuple([row for row in rows if row.begin_ms <= now_ms < row.end_ms])


def _grants(table: _Table, request: Request, acting: Institution) -> tuple[Grant, ...]:
    """Path A: the role's rows. Path B: the rows of the KBO number, then those of the role."""
    grants = table.grants
    if request.capacity is not None:
        if request.sector is None or request.type is None:
            return ()
        return grants.get(("", request.sector, request.type), ())
    framework = request.legal_framework
    if not framework:
        return ()
    found = grants.get((framework, acting.kbo), ())
    if request.sector is not None and request.type is not None:
        found += grants.get((framework, request.sector, request.type), ())
    return found
