"""Persons of a batch with the lines of all their numbers, as columns.

A person is met at the number in use. Most have one number; of the others the values of their
former numbers are fetched in the same view, and the number is skipped where it is met itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ksz_router.directory.packing import DamagedError
from ksz_router.directory.scan import Item
from ksz_router.model import NumberStatus
from ksz_router.report.directory_lines import (
    Flags,
    Heads,
    Ints,
    Lines,
    other_keys,
    read_heads,
    read_lines,
)


class Persons(NamedTuple):
    """The persons whose number in use is in a batch, and all their lines.

    The rows of the second half are sorted by person, sector, type and capacity.
    """

    number: Ints
    """In use, of each person."""
    status: Ints
    deceased: Ints
    """Day of death, ``yyyymmdd``; 0: none."""
    has_others: Flags
    """Whether the person has former numbers."""

    person: Ints
    """Of each line: whose it is, as a place in the columns above."""
    under: Ints
    """Of each line: the number that it lies under."""
    lines: Lines


def read_persons(
    items: Sequence[Item], value_of: Callable[[memoryview], memoryview | None]
) -> tuple[Heads, Persons]:
    """Return the heads of all numbers of a batch, and its persons.

    Args:
        items: The batch.
        value_of: Finds the value of a number in the same view.

    Raises:
        DamagedError: a key or value is not one that the directory writes.
    """
    heads = read_heads(items)
    single = np.flatnonzero(heads.others == 0)
    several = np.flatnonzero((heads.others > 0) & (heads.status != NumberStatus.REPLACED))
    values = [items[place][1] for place in single.tolist()]
    owner = list(range(len(single)))
    under = heads.number[single].tolist()
    for person, place in enumerate(several.tolist(), start=len(single)):
        value = items[place][1]
        values.append(value)
        owner.append(person)
        under.append(int(heads.number[place]))
        for key in other_keys(value):
            other = value_of(key)
            if other is None:
                raise DamagedError("a number names another one that is missing")
            values.append(other)
            owner.append(person)
            under.append(int.from_bytes(key, "big"))
    counts, lines = read_lines(values)
    person_of = np.repeat(np.array(owner, np.int64), counts)
    under_of = np.repeat(np.array(under, np.int64), counts)
    begin = int(np.searchsorted(person_of, len(single)))
    if begin < person_of.size:  # the lines of several numbers are sorted each, not together
        tail = [column[begin:] for column in (lines.capacity, lines.type, lines.sector, person_of)]
        order = np.concatenate((np.arange(begin), begin + np.lexsort(tail)))
        person_of, under_of, lines = person_of[order], under_of[order], lines.taken(order)
    chosen = np.concatenate((single, several))
    persons = Persons(
        number=heads.number[chosen],
        status=heads.status[chosen],
        deceased=heads.deceased[chosen],
        has_others=heads.others[chosen] > 0,
        person=person_of,
        under=under_of,
        lines=lines,
    )
    return heads, persons
