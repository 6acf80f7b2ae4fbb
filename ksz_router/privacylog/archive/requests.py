"""The sealed requests of a stretch of time, as canonical bytes, some thousands at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.chain import catalog, quarters
from ksz_router.privacylog.archive.keyed import ArchiveUnreadable
from ksz_router.privacylog.archive.manifest import Manifest
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.entry import Kind

_ROWS_AT_ONCE: Final = 65_536


def sealed_requests(
    archive: Path, manifest: Manifest, from_us: int, to_us: int
) -> Iterator[list[bytes]]:
    """Yield the entries of kind REQUEST that were made in a stretch of time.

    Args:
        archive: Folder of the archive.
        manifest: The newest one; what was sealed after it is left out.
        from_us: Unix microseconds, included.
        to_us: Not included.

    Raises:
        ArchiveUnreadable: a file that is needed is missing or damaged.
        ChainBroken: the manifests are.
    """
    for quarter in quarters(archive):
        for sealed in catalog(archive, quarter, "t").files:
            is_known = sealed.end_leaf <= manifest.sealed_leaves
            if is_known and sealed.first_us < to_us and sealed.end_us > from_us:
                yield from _requests_in(file_of(archive, sealed.path), from_us, to_us)


def _requests_in(path: Path, from_us: int, to_us: int) -> Iterator[list[bytes]]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                table = pa.Table.from_batches([batch])
                at_us = table["at_us"]
                wanted = pc.and_(
                    pc.equal(table["kind"], int(Kind.REQUEST)),
                    pc.and_(pc.greater_equal(at_us, from_us), pc.less(at_us, to_us)),
                )
                yield to_records(table.filter(wanted))
    except (OSError, pa.ArrowException) as error:
        raise ArchiveUnreadable(f"{path}: cannot be read; restore it") from error
