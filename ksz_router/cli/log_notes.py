"""What the checks of checkpoints and proofs share: the verifier keys, and files of bounded size."""

import argparse
import base64
import sys
from datetime import UTC, datetime
from pathlib import Path

from ksz_router.cli import UsageError, add_config
from ksz_router.config import load
from ksz_router.privacylog.tree.checkpoint import VKEYS_FILE, Checkpoint
from ksz_router.privacylog.tree.note import VerifierKey, read_vkeys

_FILE_BYTES_MAX = 1024 * 1024


def add_vkeys(parser: argparse.ArgumentParser) -> None:
    """Add ``--vkeys``, and ``--config`` where they are found without it."""
    add_config(parser)
    parser.add_argument(
        "--vkeys",
        type=Path,
        metavar="FILE",
        help="verifier keys, one a line (default: those of the configured archive)",
    )


def vkeys_of(arguments: argparse.Namespace) -> tuple[VerifierKey, ...]:
    """Read the verifier keys.

    Raises:
        NoteRefused: the file cannot be used.
        ConfigError: the configuration cannot be used, where no file was named.
    """
    file: Path | None = arguments.vkeys
    if file is None:
        file = Path(load(arguments.config).archive.keys) / VKEYS_FILE
    return read_vkeys(file)


def read_bytes(option: str, file: str) -> bytes:
    """Read a file, or standard input for ``-``.

    Raises:
        UsageError: it cannot be read, or is far too large.
    """
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_FILE_BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{option}: {file}: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise UsageError(f"{option}: {file}: larger than any such file")
    return data


def text_of(checkpoint: Checkpoint) -> str:
    """Return what a checkpoint says, on one line."""
    root = base64.b64encode(checkpoint.root).decode()
    return f"{checkpoint.origin}: {checkpoint.size} leaves, root {root}"


def time_of(unix_s: int) -> str:
    """Return a moment of UTC to the second; the number itself where there is no such moment."""
    try:
        return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(unix_s)
