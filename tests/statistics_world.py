"""An archive that holds rollups and nothing else: its files, its manifests, its checkpoint."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from ksz_router.days import brussels_midnight_ns
from ksz_router.privacylog.archive.chain import append, newest_recorded
from ksz_router.privacylog.archive.manifest import Cursor, Manifest, SealedFile
from ksz_router.privacylog.archive.places import file_of, sealed_path
from ksz_router.privacylog.archive.rollup import summed
from ksz_router.privacylog.archive.schema import ROLLUP
from ksz_router.privacylog.archive.segment import encode
from ksz_router.privacylog.archive.statistics import month_after

NODE, ORIGIN, ROOT = "router-a", "ksz-router.example/router-a", "A" * 43 + "="


def row(month: int, **fields: Any) -> dict[str, Any]:
    """A row of a rollup: one exchange that passed and was answered in time."""
    values: dict[str, Any] = {
        "q": quarter_of(month), "b": 0, "node": NODE, "month": month,
        "requester": "0999016460", "sector": 17, "type": 1, "capacity": 2,
        "legal_framework": None, "service": "UnemploymentData", "service_version": 3,
        "destination": "0999010126", "code": 0, "outcome": 10001, "violation": False,
        "exchanges": 1, "router_us": 1_000, "source_us": 40_000, "over_1s": 0, "over_2s": 0,
    }  # fmt: skip
    return values | fields


def quarter_of(month: int) -> str:
    return f"{month // 100}Q{(month % 100 + 2) // 3}"


def seal(archive: Path, rows: Sequence[dict[str, Any]], *, leaves: int = 100) -> SealedFile:
    """Write rows of one quarter as a run of their own, and a manifest that names it."""
    before = newest_recorded(archive)
    first = before.manifest.sealed_leaves if before is not None else 0
    (quarter,) = {each["q"] for each in rows}
    data = encode("r", summed(pa.Table.from_pylist(list(rows), schema=ROLLUP)))
    path = sealed_path("r", quarter, first, first + leaves)
    file = file_of(archive, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    months = [each["month"] for each in rows]
    sealed = SealedFile(
        kind="r", path=path, sha256=sha256(data).hexdigest(), bytes=len(data), rows=len(rows),
        quarter=quarter, key_id=f"{quarter}-00000000", first_leaf=first, end_leaf=first + leaves,
        first_us=begin_us(min(months)), end_us=begin_us(month_after(max(months))),
    )  # fmt: skip
    append(
        archive,
        Manifest(
            number=before.manifest.number + 1 if before is not None else 1,
            previous=before.sha256 if before is not None else "",
            origin=ORIGIN, node=NODE, made_at_us=0, sealed_leaves=first + leaves,
            slots={"w0": Cursor(1, 1, first + leaves, 0, 0, False)}, added=(sealed,),
        ),
    )  # fmt: skip
    checkpoint = archive / "tree" / "checkpoint"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_text(f"{ORIGIN}\n{first + leaves}\n{ROOT}\n\n", "utf-8")
    return sealed


def begin_us(month: int) -> int:
    return brussels_midnight_ns(month * 100 + 1) // 1000
