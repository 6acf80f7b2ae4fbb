"""The decoders that have a target, and how one is run: by atheris, or over its corpus.

A target is a module ``target_<name>`` with ``one_input(data)``, which returns whatever the bytes
are and raises only where the decoder breaks its contract, and ``seeds()``, valid inputs that are
made when asked for. What once was found lies in ``tests/vectors/fuzz/<name>``, where ``make test``
replays it.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

CORPUS = Path(__file__).parents[2] / "tests" / "vectors" / "fuzz"
NAMES = tuple(sorted(path.stem[7:] for path in Path(__file__).parent.glob("target_*.py")))


class Target(Protocol):
    """What a target module offers."""

    one_input: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def load(name: str) -> Target:
    """Import a target."""
    return cast("Target", importlib.import_module(f"contrib.fuzz.target_{name}"))


def scratch(name: str) -> Path:
    """Return a folder in memory, where there is such a place, that lives as long as the process."""
    memory = Path("/dev/shm")
    made = tempfile.TemporaryDirectory(
        prefix=f"ksz-router-fuzz-{name}-", dir=memory if memory.is_dir() else None
    )
    _kept.append(made)
    return Path(made.name)


_kept: list["tempfile.TemporaryDirectory[str]"] = []


def run(file: str) -> None:
    """Let atheris look for what breaks the target in ``file``; takes libFuzzer's arguments."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: PLC0415 - optional

    name = Path(file).stem.removeprefix("target_")
    counted = ("ksz_router", "contrib", "tomllib")
    for module in [each for each in sys.modules if each.partition(".")[0] in counted]:
        del sys.modules[module]  # to be imported again, with its branches counted
    with atheris.instrument_imports(include=["ksz_router", "tomllib"]):
        target = load(name)
    with tempfile.TemporaryDirectory(prefix="ksz-router-fuzz-seeds-") as folder:
        for number, seed in enumerate(target.seeds()):
            Path(folder, f"seed-{number:03}").write_bytes(seed)
        atheris.Setup([*sys.argv, folder], target.one_input)
        atheris.Fuzz()
