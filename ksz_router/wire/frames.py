"""One frame: four bytes of length, most significant first, then a MessagePack message."""

from struct import Struct

from ksz_router.limits import frame_length_bytes

_length = Struct(">I")
assert _length.size == frame_length_bytes

length_at = _length.unpack_from
"""The length that stands at an offset, as a tuple of one."""

packed_length = _length.pack
"""A length as it stands before its message."""
