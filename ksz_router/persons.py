"""What the person directory says of a person: a state, and lines that stay packed until looked at.

A person has some ten lines, and a request concerns those of one or two roles. Twenty bytes a line
with whole-byte fields let the few be found by ``bytes.find`` and unpacked by calls that stay in C;
``docs/directory-format.md`` draws them. On disk they lie in the same form, so a look-up unpacks
nothing.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from itertools import starmap

import msgspec

from ksz_router.model import ANY_TYPE, Day, Line, NumberStatus

_LINE = struct.Struct("<HhHHIII")  # sector, type, capacity, phase, begin, end, changed
_ROLE = struct.Struct("<Hh")
_ROLES_KEPT_MAX = 4_096
"""More than there are institution types of all sectors."""

_pack_line, _unpack_line, _iter_lines = _LINE.pack, _LINE.unpack_from, _LINE.iter_unpack

LINE_BYTES = _LINE.size
assert LINE_BYTES == 20

PackedRoles = tuple[bytes, ...]
"""How lines of some roles begin."""


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
        """All lines, unpacked each time: whoever needs those of some roles asks :meth:`under`."""
        return unpack_lines(self.packed)

    @property
    def lines_count(self) -> int:
        """How many lines there are."""
        return len(self.packed) // LINE_BYTES

    def under(self, roles: PackedRoles) -> list[Line]:
        """Return the lines of some roles, in the order in which they are held."""
        packed = self.packed
        places = []
        for role in roles:
            at = packed.find(role)
            while at >= 0:
                if at % LINE_BYTES:  # other fields that look like it
                    at = packed.find(role, at + 1)
                else:
                    places.append(at)
                    at = packed.find(role, at + LINE_BYTES)
        if len(places) > 1:
            places.sort()
        return [Line(*_unpack_line(packed, at)) for at in places]

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


@lru_cache(maxsize=_ROLES_KEPT_MAX)
def packed_role(sector: int, kind: int) -> PackedRoles:
    """Return how lines begin that fit a role: those of its type, and of any type of its sector."""
    if kind == ANY_TYPE:
        return (_ROLE.pack(sector, kind),)
    return _ROLE.pack(sector, ANY_TYPE), _ROLE.pack(sector, kind)
