"""What the rows of one number may not say together: the rules, and the reasons."""

from collections.abc import Sequence
from itertools import pairwise

from ksz_router.directory.packing import order
from ksz_router.directory.rows import LineRow, NumberRow, RowError
from ksz_router.limits import person_lines_max
from ksz_router.model import Line


def check_together(rows: Sequence[tuple[NumberRow | LineRow, int]]) -> None:
    """See that rows of one number, each with its place in the file, do not contradict each other.

    Raises:
        RowError: they do.
    """
    numbers = sorted(row for judged, row in rows if isinstance(judged, NumberRow))
    lines = [(judged.line, row) for judged, row in rows if isinstance(judged, LineRow)]
    lines.sort(key=lambda found: (*order(found[0]), found[1]))
    if not numbers:
        raise RowError("insz: the number has no number row", lines[0][1])
    if len(numbers) > 1:
        raise RowError(f"insz: row {numbers[0]} is about the same number", numbers[1])
    if len(lines) > person_lines_max:
        why = f"insz: a number may have {person_lines_max} lines at most"
        raise RowError(why, lines[-1][1])
    for (former, former_row), (later, later_row) in pairwise(lines):
        if overlap(former, later):
            raise RowError(f"begin: the period overlaps that of row {former_row}", later_row)


def overlap(former: Line, later: Line) -> bool:
    """Say whether two neighbours in order are of one capacity of one role and share a day."""
    return later.begin <= former.end and (former.sector, former.type, former.capacity) == (
        later.sector,
        later.type,
        later.capacity,
    )
