"""One frame: four bytes of length, most significant first, then a MessagePack message.

Nothing here knows what a message means; ``events.py`` says what may be one.
"""

from collections.abc import Generator
from struct import Struct

from ksz_router.limits import frame_length_bytes

_length = Struct(">I")
assert _length.size == frame_length_bytes

length_at = _length.unpack_from
"""The length that stands at an offset, as a tuple of one."""

put_length = _length.pack_into
"""Write a length at an offset of a buffer."""


class FrameBuffer:
    """Cuts a stream of bytes into frames, however it was cut before.

    A frame's length is judged as soon as its four bytes are there, before room is made for it,
    and against the bound that holds when its turn comes: what a frame means may change it.
    """

    __slots__ = ("_pending", "bytes_max", "count", "is_too_large")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.is_too_large = False
        """A length was zero or out of bounds; nothing more comes out."""
        self.count = 0
        """Whole frames so far."""
        self._pending = bytearray()

    def feed(self, data: bytes) -> Generator[bytes | bytearray, None, None]:
        """Take bytes in and give the body of each frame that is whole now, one by one.

        A body is a copy and its taker's own. What was not taken when the generator is closed comes
        with the next feeding.
        """
        pending = self._pending
        whole: bytes | bytearray = data
        if pending:
            pending += data
            whole = pending
        start, end = 0, len(whole)
        try:
            while (begin := start + frame_length_bytes) <= end:
                (length,) = length_at(whole, start)
                if not 0 < length <= self.bytes_max:
                    self.is_too_large = True
                    break
                stop = begin + length
                if stop > end:
                    break
                start = stop
                self.count += 1
                yield whole[begin:stop]
        finally:
            if whole is pending:
                del pending[:start]
            elif start < end:
                pending += whole[start:]

    @property
    def is_empty(self) -> bool:
        """No part of a frame is waiting for its rest."""
        return not self._pending
