"""A file of the rulebook's text: findings with their places; without errors, it compiles."""

from collections.abc import Iterator
from pathlib import Path

from contrib.fuzz import targets
from ksz_router.rulebook.check import check
from ksz_router.rulebook.join import join
from ksz_router.rulebook.source import read

_EXAMPLE = Path(__file__).parents[2] / "config" / "rulebook-example"
_FOLDER = targets.scratch("rulebook")
_KINDS = ("institutions", "services", "deliberations", "availability", "outages", "rights")


def one_input(data: bytes) -> None:
    """First byte: the folder of the file that holds the rest."""
    if not data:
        return
    file = _FOLDER / _KINDS[data[0] % len(_KINDS)] / "one.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data[1:])
    try:
        text, findings = read(_FOLDER)
        found = [*findings, *check(text, 20261122)]
        assert all(finding.place.line >= 1 for finding in found)
        assert all(finding.reason for finding in found)
        if not any(finding.is_error for finding in found):
            join(text)
    finally:
        file.unlink()


def seeds() -> Iterator[bytes]:
    """The files of the example."""
    for file in sorted(_EXAMPLE.rglob("*.toml")):
        yield bytes([_KINDS.index(file.parent.name)]) + file.read_bytes()


if __name__ == "__main__":
    targets.run(__file__)
