"""The files of a quarter as a catalog of full size lists them: real ones, and further names."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from bench.traffic import kbo
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.places import file_of, sealed_path
from ksz_router.privacylog.archive.schema import SCHEMAS

if TYPE_CHECKING:
    from bench.ten_years import Size

_ID_BYTE = 0x01
"""UUIDv7 begin with this byte until the year 2109."""
_FIRST_OF_OTHERS = 5_000
"""Number of the first institution of which there are no rows, but names of parts."""


def pieces(rows: int, rows_max: int) -> list[int]:
    """Return where rows are cut into the fewest parts that are no longer."""
    parts = -(-rows // rows_max)
    return [rows * part // parts for part in range(parts + 1)]


def key_cuts(keys: pa.Table) -> list[int]:
    """Return where the keys are cut: exchange ids, which begin with their time, and tickets."""
    cells = np.frombuffer(keys["key"].combine_chunks().buffers()[1], np.uint8).reshape(-1, 16)
    ids = int(np.searchsorted(cells[:, 0], _ID_BYTE, side="right"))
    return [0, ids // 2, ids, len(keys)]


def parts_of(archive: Path, size: "Size", real: Sequence[SealedFile]) -> Iterator[SealedFile]:
    """Yield the files of a quarter as a catalog of full size lists them."""
    by_kind = {kind: [file for file in real if file.kind == kind] for kind in SCHEMAS}
    first, end = real[0].first_leaf, real[0].first_leaf + size.leaves
    truth = by_kind["t"]
    yield from truth
    step = truth[0].end_leaf - first
    for at, begin in enumerate(range(truth[-1].end_leaf, end, step)):
        like = truth[at % len(truth)]
        yield _linked(archive, like, begin, min(begin + step, end), truth=True)
    persons = by_kind["p"]
    for part in range(size.person_parts):
        bounds = _range(0, 2**128, part, size.person_parts)
        like = persons[part * len(persons) // size.person_parts]
        yield _linked(archive, like, first, end, part=part, parts=size.person_parts, bounds=bounds)
    yield from _key_parts(archive, size, by_kind["k"], first, end)
    asked, *others = by_kind["u"]
    yield _linked(archive, asked, first, end, part=0, parts=size.use_parts)
    for part in range(1, size.use_parts):
        # Behind those that are asked for: the institutions of the second real file, in pieces.
        at = _FIRST_OF_OTHERS + part
        bounds = kbo(at), kbo(at)
        yield _linked(
            archive, others[part % len(others)], first, end,
            part=part, parts=size.use_parts, bounds=bounds,
        )  # fmt: skip
    yield from by_kind["r"]


def _key_parts(
    archive: Path, size: "Size", real: Sequence[SealedFile], first: int, end: int
) -> Iterator[SealedFile]:
    """Two of three keys are exchange ids, in parts by their time; the others are tickets."""
    *ids, tickets = real
    of_ids = size.key_parts * 2 // 3
    begin, middle, behind = (int(file.min_key, 16) for file in real)
    for part in range(size.key_parts):
        if part < of_ids:
            half = part * 2 // of_ids
            low, high = (begin, middle) if half == 0 else (middle, behind)
            like, at, parts = ids[half], part - half * (of_ids // 2), of_ids // 2
        else:
            low, high = behind, 2**128
            like, at, parts = tickets, part - of_ids, size.key_parts - of_ids
        bounds = _range(low, high, at, parts)
        yield _linked(archive, like, first, end, part=part, parts=size.key_parts, bounds=bounds)


def _range(low: int, high: int, part: int, parts: int) -> tuple[str, str]:
    """Return the least and the greatest value of one of so many equal ranges, in hexadecimal."""
    edges = [low + (high - low) * n // parts for n in (part, part + 1)]
    return f"{edges[0]:032x}", f"{edges[1] - 1:032x}"


def _linked(
    archive: Path,
    like: SealedFile,
    first_leaf: int,
    end_leaf: int,
    *,
    part: int = 0,
    parts: int = 1,
    bounds: tuple[str, str] | None = None,
    truth: bool = False,
) -> SealedFile:
    """Give a real file a further name, and say of it what is said of a part."""
    path = sealed_path(like.kind, like.quarter, first_leaf, end_leaf, level=like.level, part=part)
    target = file_of(archive, path)
    target.unlink(missing_ok=True)
    os.link(file_of(archive, like.path), target)
    low, high = bounds or (like.min_key, like.max_key)
    if truth:
        low, high = str(first_leaf), str(end_leaf - 1)
    return msgspec.structs.replace(
        like, path=path, first_leaf=first_leaf, end_leaf=end_leaf, part=part, parts=parts,
        min_key=low, max_key=high,
    )  # fmt: skip
