"""The decoders that have a target, and how one is run: by atheris, or over its corpus."""

from pathlib import Path

CORPUS = Path(__file__).parents[2] / "tests" / "vectors" / "fuzz"
NAMES: tuple[str, ...] = ()
