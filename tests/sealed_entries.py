"""An archive that holds some entries, as the sealer would have put them there: truth and keys."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from ksz_router.privacylog.archive.chain import append
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.exchange_rows import derive, narrowed
from ksz_router.privacylog.archive.manifest import Cursor, Manifest, SealedFile
from ksz_router.privacylog.archive.places import file_of, sealed_path
from ksz_router.privacylog.archive.segment import encode
from ksz_router.privacylog.entry import Entry, canonical
from ksz_router.privacylog.keys import load, quarter_of


def seal_entries(archive: Path, entries: Sequence[Entry], keys: Path) -> None:
    """Seal the first entries of the slot ``w0``, all of one quarter, in one step."""
    count = len(entries)
    quarter = quarter_of(entries[0].at_us * 1000)
    truth = to_table(
        [canonical(entry) for entry in entries], first_seq=0, q=quarter, node="router-a",
        slots=["w0"] * count, record_numbers=range(count),
    )  # fmt: skip
    times = [entry.at_us for entry in entries]
    files = []
    for kind, table in (("t", truth), ("k", derive([narrowed(truth)], []).k)):
        path = sealed_path(kind, quarter, 0, count)
        data = encode(kind, table).to_pybytes()
        file_of(archive, path).parent.mkdir(parents=True)
        file_of(archive, path).write_bytes(data)
        files.append(
            SealedFile(
                kind=kind, path=path, sha256=sha256(data).hexdigest(), bytes=len(data),
                rows=len(table), quarter=quarter, key_id=load(keys, quarter).id, first_leaf=0,
                end_leaf=count, first_us=min(times), end_us=max(times) + 1,
            )
        )  # fmt: skip
    (archive / "order").mkdir()
    append(
        archive,
        Manifest(
            number=1, previous="", origin="o", node="router-a", made_at_us=0, sealed_leaves=count,
            slots={"w0": Cursor(1, 1, count, 0, 0, False)}, added=tuple(files),
        ),
    )  # fmt: skip
