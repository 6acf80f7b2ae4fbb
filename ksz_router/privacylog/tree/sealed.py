"""How far the log is sealed, as the newest manifest of the archive says."""

import re
from pathlib import Path

import msgspec

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.manifest import Manifest

_FILE = re.compile(r"([0-9]{6,})\.json")
_manifest = msgspec.json.Decoder(Manifest)


class ManifestDamaged(PrivacyLogError):
    """The newest manifest cannot be read."""


def newest_manifest(archive: Path) -> Manifest | None:
    """Return the newest manifest; None where nothing is sealed.

    Raises:
        ManifestDamaged: it is no manifest.
        OSError: it cannot be read.
    """
    try:
        names = [entry.name for entry in (archive / "manifest").iterdir()]
    except FileNotFoundError:
        return None
    matches = (_FILE.fullmatch(name) for name in names)
    newest = max((match for match in matches if match), key=lambda m: int(m[1]), default=None)
    if newest is None:
        return None
    file = archive / "manifest" / newest[0]
    try:
        return _manifest.decode(file.read_bytes())
    except msgspec.MsgspecError as error:
        raise ManifestDamaged(f"{file}: is no manifest: put back a copy of it") from error
