"""A process that changes a directory until it is killed: ``python -m tests.directory_child PATH``.

After each transaction it prints the version that it was told is durable.
"""

import sys
from itertools import count
from pathlib import Path

from ksz_router.directory.change import Change, Operation
from ksz_router.directory.writer import Writer
from ksz_router.model import Line
from tests.directory_files import A, B
from tests.directory_model import NOW_US

BATCH = 50


def batch(index: int) -> list[Change]:
    """Always the same changes for the same index: each adds a line, under one number or another."""
    found = []
    for step in range(index * BATCH, (index + 1) * BATCH):
        line = Line(step // 900 % 999, step // 900_000, step % 900, 0, 20200101, 20201231)
        change = Change(step.to_bytes(16, "big"), (A, B)[step % 2], Operation.INSCRIBE, line)
        found.append(change)
    return found


def main(target: Path) -> None:
    """Apply batch after batch."""
    writer = Writer.open(target)
    for index in count():
        writer.apply(batch(index), NOW_US)
        sys.stdout.write(f"{writer.version}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
