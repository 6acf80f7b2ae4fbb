"""What the person directory says of a person: a state, and lines that stay packed until looked at.

A person has some ten lines, and a request concerns those of one or two roles. Twenty bytes a line
with whole-byte fields let the few be found in a column of them and unpacked by calls that stay in
C; ``docs/directory-format.md`` draws them. On disk they lie in the same form, so a look-up unpacks
nothing.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from itertools import starmap

import msgspec

from ksz_router.model import ANY_TYPE, PROVISIONAL, Day, Line, NumberStatus, Role

_LINE = struct.Struct("<HhHHIII")  # sector, type, capacity, phase, begin, end, changed

_pack_role, _pack_capacity = struct.Struct("<Hh").pack, struct.Struct("<H").pack
_pack_line, _unpack_line, _iter_lines = _LINE.pack, _LINE.unpack_from, _LINE.iter_unpack

LINE_BYTES = _LINE.size
assert LINE_BYTES == 20

_FITTINGS_KEPT_MAX = 4_096
"""More than a rulebook has of them; without those that are kept, each requester had its own."""


class Fitting(msgspec.Struct, frozen=True, gc=False):
    """Which lines fit: of some roles, or of any type of their sectors, in some capacities."""

    files: frozenset[tuple[int, int]]
    """Sector and institution type."""
    capacities: frozenset[int] | None
    """None: any."""
    provisional: bool
    """Of any capacity, whether a provisional one counts."""
    heads: frozenset[bytes]
    """How packed lines that fit begin: with role and capacity, or with the role alone."""
    head_bytes: int
    first: bytes
    """The first byte of those heads, which is the lower one of the sector."""
    alike: bytes | None
    """Makes that byte of the first ones of several sectors; for ``bytes.translate``."""


@lru_cache(maxsize=_FITTINGS_KEPT_MAX)
def fitting(
    roles: tuple[Role, ...], capacities: frozenset[int] | None, *, provisional: bool = False
) -> Fitting:
    """Settle which lines fit, once for many persons."""
    files = frozenset((role.sector, kind) for role in roles for kind in (role.type, ANY_TYPE))
    codes = [b""] if capacities is None else [_pack_capacity(code) for code in capacities]
    heads = frozenset(_pack_role(*file) + code for file in files for code in codes)
    head_bytes = len(next(iter(heads), b""))
    firsts = sorted({head[:1] for head in heads}) or [b"\0"]
    alike = bytes.maketrans(b"".join(firsts), firsts[0] * len(firsts)) if firsts[1:] else None
    return Fitting(files, capacities, provisional, heads, head_bytes, firsts[0], alike)


class Person(msgspec.Struct, frozen=True, gc=False):
    """What the directory holds under one INSZ: its state, and the lines of all its numbers."""

    status: NumberStatus
    current: str
    """The INSZ in use now; the asked one unless it was replaced."""
    current_status: NumberStatus
    packed: bytes = b""
    """Lines, :data:`LINE_BYTES` each; see :func:`pack_lines`."""
    deceased: Day = 0

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines, unpacked each time: whoever needs those of some roles asks :meth:`fitting`."""
        return unpack_lines(self.packed)

    @property
    def lines_count(self) -> int:
        """How many lines there are."""
        return len(self.packed) // LINE_BYTES

    def fitting(self, wanted: Fitting, phase: int, begin: Day, end: Day) -> list[Line]:
        """Return the lines that fit and are far enough, of a day of the period at least.

        They are in the order in which they are held.
        """
        packed, first, rest = self.packed, wanted.first, self.packed[::LINE_BYTES]
        heads, head_bytes = wanted.heads, wanted.head_bytes
        if wanted.alike is not None:
            rest = rest.translate(wanted.alike)
        at, byte, found = -LINE_BYTES, first[0], []
        # One byte of each line leaves most of them aside, without a loop over them.
        while byte in rest:
            before, _, rest = rest.partition(first)
            at += LINE_BYTES * (len(before) + 1)
            if packed[at : at + head_bytes] in heads:
                line = Line(*_unpack_line(packed, at))
                if line.begin <= end and line.end >= begin and line.phase >= phase:
                    found.append(line)
        if found and wanted.capacities is None and not wanted.provisional:
            return [line for line in found if line.capacity != PROVISIONAL]
        return found

    def __repr__(self) -> str:
        return f"Person({self.status.name}, lines={self.lines_count})"


def pack_lines(lines: Iterable[Line]) -> bytes:
    """Return lines in their packed form, in the order given."""
    return b"".join(
        [
            _pack_line(n.sector, n.type, n.capacity, n.phase, n.begin, n.end, n.changed)
            for n in lines
        ]
    )


def unpack_lines(packed: bytes | memoryview) -> tuple[Line, ...]:
    """Return the lines of their packed form, of which there is no part too many.

    Raises:
        struct.error: the last line is cut off.
    """
    return tuple(starmap(Line, _iter_lines(packed)))
