"""Spare the collector what a program makes at its start and keeps."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector from all that is made inside, then and for ever: it is made to stay.

    Going through a hundred thousand rows again and again takes longer than making them.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        gc.enable()
