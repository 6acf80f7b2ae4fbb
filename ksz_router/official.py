"""The official code lists: sectors and institution types, capacities, status codes, services.

They ship as JSON in ``ksz_router/data``; each file names the KSZ document it was taken from. The
lists are read once and never change while a process runs.
"""

from functools import cache
from importlib.resources import files

import msgspec

ALL_SECTOR_CAPACITIES = frozenset({0, 902})
"""Definitive and provisional inscription (form I605): capacities in every sector."""

REPLACED_MARK = 999
"""The directory's mark of a replaced INSZ; never a capacity."""


class SectorType(msgspec.Struct, frozen=True):
    """A sector and institution type, with its names."""

    sector: int
    type: int
    abbr_nl: str
    name_nl: str
    abbr_fr: str
    name_fr: str


class CapacityCode(msgspec.Struct, frozen=True):
    """A capacity of one sector (``None``: of every sector), with its labels."""

    sector: int | None
    code: int
    label_nl: str
    label_fr: str
    label_de: str = ""


class StatusCode(msgspec.Struct, frozen=True):
    """A status or return code seen in the network."""

    code: str
    family: str
    value: str | None
    meaning: str


class ServiceName(msgspec.Struct, frozen=True):
    """A service of the network, as its documents name it."""

    name: str
    provider: str | None
    description: str
    legal_contexts: tuple[str, ...] = ()


class _Lists(msgspec.Struct, frozen=True):
    """The shape of the files; each has one of these lists."""

    source: str
    sectors: tuple[SectorType, ...] = ()
    capacities: tuple[CapacityCode, ...] = ()
    status_codes: tuple[StatusCode, ...] = ()
    services: tuple[ServiceName, ...] = ()


@cache
def _read(name: str) -> _Lists:
    text = files("ksz_router").joinpath("data", name).read_bytes()
    return msgspec.json.decode(text, type=_Lists)


@cache
def sectors() -> dict[tuple[int, int], SectorType]:
    """Return every (sector, institution type) that exists."""
    return {(row.sector, row.type): row for row in _read("sectors.json").sectors}


@cache
def capacities() -> dict[tuple[int | None, int], CapacityCode]:
    """Return every (sector, code); ``None`` as sector: of every sector."""
    return {(row.sector, row.code): row for row in _read("capacities.json").capacities}


@cache
def status_codes() -> dict[str, StatusCode]:
    """Return the status and return codes by code."""
    return {row.code: row for row in _read("status_codes.json").status_codes}


def services() -> tuple[ServiceName, ...]:
    """Return the services that published documents name."""
    return _read("services.json").services


def is_role(sector: int, institution_type: int) -> bool:
    """Say whether the sector exists and has this institution type."""
    return (sector, institution_type) in sectors()


def is_capacity(sector: int, code: int) -> bool:
    """Say whether ``code`` is a capacity in ``sector``; 0 and 902 are in all, 999 in none."""
    return code in ALL_SECTOR_CAPACITIES or (sector, code) in capacities()


def capacity_label(sector: int, code: int) -> str:
    """Return the Dutch label of a capacity, or an empty text where the lists have none."""
    row = capacities().get((sector, code)) or capacities().get((None, code))
    return row.label_nl if row is not None else ""
