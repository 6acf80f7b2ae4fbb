"""Compile the checked text into a generation: name the joined rows by their content, and write.

``write`` is the only commit point: everything is written to a temporary folder,
flushed, and renamed. A crash before the rename leaves a folder ``.building-*`` that nothing reads;
after it the generation is complete. Nothing here signs.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import lmdb
import msgspec

from ksz_router.limits import MIB
from ksz_router.model import Day, Grant
from ksz_router.rulebook.check import check
from ksz_router.rulebook.generation import (
    DATA,
    ENCODER,
    FORMAT,
    MANIFEST,
    Manifest,
    Rows,
    RulebookError,
    ServiceRows,
    flush,
    name_of,
    read_manifest,
    right_key,
    service_key,
)
from ksz_router.rulebook.join import join
from ksz_router.rulebook.rows import Finding, SourceFile
from ksz_router.rulebook.source import read


class RulebookRefusedError(RulebookError):
    """The text has errors; ``findings`` are all of them, the warnings too."""

    def __init__(self, findings: list[Finding]) -> None:
        errors = sum(finding.is_error for finding in findings)
        super().__init__(f"the rulebook is refused: {errors} error(s); mend each and build again")
        self.findings = findings


def build(
    folder: Path, store: Path, *, now_ns: int, today: Day | None = None
) -> tuple[Manifest, list[Finding]]:
    """Read, check and compile a rulebook folder into the store.

    Returns:
        The manifest of the generation, and the warnings.

    Raises:
        RulebookRefusedError: the text has errors; nothing was written.
        RulebookError: the folder does not exist, or the store cannot be written.
    """
    text, findings = read(folder)
    findings += check(text, today)
    if any(finding.is_error for finding in findings):
        raise RulebookRefusedError(findings)
    return write(join(text), store, text.files, now_ns), findings


def write(rows: Rows, store: Path, files: tuple[SourceFile, ...], now_ns: int) -> Manifest:
    """Write the rows as a generation; if the store has it already, leave it as it is.

    Raises:
        GenerationDamagedError: the store has it already, and it is damaged.
        RulebookError: the store cannot be written.
    """
    name = name_of(rows)
    generations = store / "generations"
    if (generations / name).is_dir():
        return read_manifest(generations / name)
    try:
        generations.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=generations))
        try:
            manifest = _fill(building, name, rows, files, now_ns)
            building.chmod(0o755)
            flush(building)
            building.rename(generations / name)
            flush(generations)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except (OSError, lmdb.Error) as error:
        raise RulebookError(
            f"{store}: cannot be written ({error}); check its owner and the free space"
        ) from error
    return manifest


def _fill(
    folder: Path, name: str, rows: Rows, files: tuple[SourceFile, ...], now_ns: int
) -> Manifest:
    tables = {
        b"institutions": [(r.kbo.encode(), ENCODER.encode(r)) for r in rows.institutions],
        b"services": [
            (service_key(r.service.name, r.service.version), ENCODER.encode(r))
            for r in rows.services
        ],
        b"outages": [(b"all", ENCODER.encode(rows.outages))],
        b"rights": [(right_key(r.kbo, r.holder), ENCODER.encode(r)) for r in rows.rights],
    }
    size = sum(len(key) + len(value) for table in tables.values() for key, value in table)
    # A value fills whole pages and a page may be half empty: four times the bytes is never short.
    environment = lmdb.open(
        str(folder), map_size=64 * MIB + 4 * size, max_dbs=len(tables), lock=False, lib_version=0
    )
    try:
        with environment.begin(write=True) as transaction:
            for table, items in tables.items():
                database = environment.open_db(table, txn=transaction)
                for key, value in sorted(items):
                    transaction.put(key, value, db=database, append=True)
        environment.sync(True)
    finally:
        environment.close()
    manifest = Manifest(
        format=FORMAT,
        name=name,
        counts={
            "institutions": len(rows.institutions),
            "services": len(rows.services),
            "grants": len({g.id for r in rows.services for g in _all_grants(r)}),
            "availability": sum(len(r.sources) for r in rows.services),
            "outages": len(rows.outages),
            "rights": sum(len(r.rights) for r in rows.rights),
        },
        data_sha256=hashlib.sha256((folder / DATA).read_bytes()).hexdigest(),
        built_at=datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).isoformat(),
        files=files,
    )
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    (folder / MANIFEST).write_bytes(encoded)
    for file in (DATA, MANIFEST):
        (folder / file).chmod(0o444)
        flush(folder / file)
    return manifest


def _all_grants(rows: ServiceRows) -> Iterable[Grant]:
    yield from rows.grants
    for source in rows.sources:
        yield from source.receive
