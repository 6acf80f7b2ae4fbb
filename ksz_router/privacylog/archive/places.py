"""Where the files of an archive are. Pure: names only."""

import re
from pathlib import Path

from ksz_router.privacylog import PrivacyLogError

_PATH = re.compile(
    r"q=([0-9]{4}Q[1-4])/(?:(t)/[0-9]{12,}-[0-9]{12,}|([pukr])/[0-9]{12,}-[0-9]{12,}-[0-9]+-[0-9]{4,})"
    r"\.parquet|carry/[0-9]{12,}\.msgpack"
)


class ChainBroken(PrivacyLogError):
    """A manifest is missing, damaged, or does not follow the one before. The message names it."""


def sealed_path(
    kind: str, quarter: str, first_leaf: int, end_leaf: int, *, level: int = 0, part: int = 0
) -> str:
    """Return where a Parquet file of a run lies below ``sealed/``."""
    name = f"{first_leaf:012d}-{end_leaf:012d}"
    if kind != "t":
        name += f"-{level}-{part:04d}"
    return f"q={quarter}/{kind}/{name}.parquet"


def carry_path(end_leaf: int) -> str:
    """Return where the entries carried over at a leaf lie below ``sealed/``."""
    return f"carry/{end_leaf:012d}.msgpack"


def file_of(archive: Path, path: str) -> Path:
    """Return the file that a manifest names.

    Raises:
        ChainBroken: no file of an archive has such a name.
    """
    key_of(path)
    return archive / "sealed" / path


def key_of(path: str) -> tuple[str, str]:
    """Return quarter and kind of a file, as its path says; of what is carried over no quarter.

    Raises:
        ChainBroken: no file of an archive has such a name.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise ChainBroken("a manifest names a file that cannot be one of the archive")
    return (match[1], match[2] or match[3]) if match[1] else ("", "c")


def manifest_file(archive: Path, number: int) -> Path:
    """Return the path of a manifest."""
    return archive / "manifest" / f"{number:06d}.json"


def catalog_file(archive: Path, quarter: str, kind: str) -> Path:
    """Return the path of a catalog."""
    return archive / "catalog" / f"{quarter}-{kind}.msgpack"


def index_file(archive: Path) -> Path:
    """Return the path of what says up to which manifest the catalogs are."""
    return archive / "catalog" / "index.msgpack"
