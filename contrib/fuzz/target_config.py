"""The configuration: an error that names the file, or values that are in their ranges."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from contrib.fuzz import targets
from ksz_router.config import Config, ConfigError, load

_DEFAULTS = Path(__file__).parents[2] / "config" / "router.toml"
_FILE = targets.scratch("config") / "router.toml"


def one_input(data: bytes) -> None:
    """The whole file."""
    _FILE.write_bytes(data)
    try:
        config = load(_FILE)
    except ConfigError as error:
        assert str(error).startswith(str(_FILE))
        return
    assert 1 <= config.node.workers <= 64
    assert msgspec.convert(msgspec.to_builtins(config), Config) == config


def seeds() -> Iterator[bytes]:
    """The defaults, whole and section by section."""
    text = _DEFAULTS.read_text(encoding="utf-8")
    yield text.encode()
    for section in text.split("\n[")[1:]:
        yield f"[{section}".encode()


if __name__ == "__main__":
    targets.run(__file__)
