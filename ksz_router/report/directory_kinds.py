"""The kinds of line that occur: sector, type and capacity, each given a small number.

There are some hundreds; counts are kept by these numbers, so that the lines of a batch are counted
by one call.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ksz_router.directory.packing import DirectoryError
from ksz_router.model import ANY_TYPE
from ksz_router.report.directory_lines import CAPACITY_MAX, SECTOR_MAX, TYPE_MAX, Ints, Lines

KINDS_MAX = 16_384
"""More than all official codes together; it bounds the counts that are kept."""

_TYPES, _CAPACITIES = TYPE_MAX + 2, CAPACITY_MAX + 1


class LineKind(NamedTuple):
    """A capacity of a role."""

    sector: int
    type: int
    """``ANY_TYPE``: the lines say none."""
    capacity: int


class Kinds:
    """Numbers given out in the order in which kinds are met."""

    def __init__(self, met: Callable[[LineKind], None]) -> None:
        """``met`` hears of each new kind, once, in the order of their numbers."""
        self._met = met
        self._role_of = np.full((SECTOR_MAX + 1) * _TYPES, -1, np.int64)
        self._kind_of = np.full((0, _CAPACITIES), -1, np.int64)
        self.known: list[LineKind] = []

    def of(self, lines: Lines) -> Ints:
        """Return the number of the kind of each line.

        Raises:
            DirectoryError: there are more kinds than a directory of real codes has.
        """
        code = lines.sector * _TYPES + (lines.type - ANY_TYPE)
        role = self._role_of[code]
        if role.size and role.min() < 0:
            new = np.unique(code[role < 0])
            if len(self._kind_of) + len(new) > KINDS_MAX:
                raise _too_many()
            self._role_of[new] = np.arange(len(self._kind_of), len(self._kind_of) + len(new))
            more = np.full((len(new), _CAPACITIES), -1, np.int64)
            self._kind_of = np.concatenate((self._kind_of, more))
            role = self._role_of[code]
        kind = self._kind_of[role, lines.capacity]
        if kind.size and kind.min() < 0:
            first = np.unique(code[kind < 0] * _CAPACITIES + lines.capacity[kind < 0])
            if len(self.known) + len(first) > KINDS_MAX:
                raise _too_many()
            for each in first.tolist():
                self._add(each)
            kind = self._kind_of[role, lines.capacity]
        found: Ints = kind
        return found

    def _add(self, code: int) -> None:
        role, capacity = divmod(code, _CAPACITIES)
        sector, type_ = divmod(role, _TYPES)
        self._kind_of[self._role_of[role], capacity] = len(self.known)
        kind = LineKind(sector, type_ + ANY_TYPE, capacity)
        self.known.append(kind)
        self._met(kind)


def _too_many() -> DirectoryError:
    return DirectoryError(
        f"the directory has lines of more than {KINDS_MAX} different sectors, types and "
        "capacities, which are no official codes; see `ksz-router directory check`"
    )
