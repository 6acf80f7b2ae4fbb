"""The engine of the protocol, each side, before and after the greeting: ``engine.judge`` judges."""

from collections.abc import Iterator

from contrib.fuzz import engine, mutations, targets
from ksz_router.wire import Connection, Event, Side

_SIDES = tuple(Side)
_RECORDED = mutations.recorded()


def one_input(data: bytes) -> None:
    """First byte: the side, whether it is greeted already, and whether bytes come in halves."""
    if not data:
        return
    head, rest = data[0], data[1:]
    side = _SIDES[head % 4]
    if head & 4:
        rest = _RECORDED[side.name.lower()][0][0] + rest
    at = len(rest) // 2 if head & 8 else len(rest)
    connection = Connection(side, agent="fuzz", inflight_max=1)
    connection.data_to_send()
    events: list[Event] = [*connection.receive_data(rest[:at]), *connection.receive_data(rest[at:])]
    engine.judge(side, events, connection.data_to_send(), is_ended=connection.is_ended)
    was_ended = connection.is_ended
    assert bool(connection.receive_end()) != was_ended


def seeds() -> Iterator[bytes]:
    """What each side receives in the vectors, behind its greeting."""
    for head, side in enumerate(_SIDES):
        for talk in _RECORDED[side.name.lower()]:
            yield bytes([head]) + b"".join(talk)
            yield bytes([head | 12]) + b"".join(talk[1:])


if __name__ == "__main__":
    targets.run(__file__)
