"""A bar on standard error for what takes minutes; nothing where nobody watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WIDTH = 40


@contextmanager
def drawn() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give what draws the bar: what is being done, how much is done, how much there is."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield _draw
    finally:
        print(file=sys.stderr)


def _draw(what: str, done: int, total: int) -> None:
    share = min(1.0, done / total) if total else 1.0
    bar = "#" * int(share * _WIDTH)
    print(f"\r{what:>6} [{bar:<{_WIDTH}}] {share:4.0%}", end="", file=sys.stderr, flush=True)
