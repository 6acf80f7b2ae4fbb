"""How the client puts several requests into envelopes, before anything is sent."""

import pytest

from ksz_router.limits import envelope_requests_max, frame_bytes_max, frame_length_bytes
from ksz_router.messages import Envelope, Request
from ksz_router.sdk.line import Line
from ksz_router.sdk.pump import Pump
from ksz_router.sdk.together import fitting, neighbours
from ksz_router.wire import MessageTooLargeError, Side
from tests.test_wire_vectors import opened


def request(size: int = 0, **fields: object) -> Request:
    return Request(
        id=0, service="s", version=1, ticket="t", payload=bytes(size), **fields  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("user", [None, "85073099734"])
def test_an_envelope_is_filled_to_the_last_byte_of_a_frame_and_no_further(user: str | None) -> None:
    """With a byte more in it, its last request waits for the next one."""
    full = [request(300_000, user=user)] * 3
    sizes = []
    for spare in range(148_400, 148_600):
        raws = fitting([*full, request(spare, user=user)], frame_bytes_max)
        connection = opened(Side.REQUESTER)
        connection.send(Envelope(id=0xFFFF_FFFF - 3, requests=tuple(raws), user=user))
        sizes.append(len(connection.data_to_send()) - frame_length_bytes)
    assert frame_bytes_max - 3 < max(sizes) <= frame_bytes_max
    assert min(sizes) < 910_000, "the fourth waits for the next envelope"
    with pytest.raises(MessageTooLargeError):
        opened(Side.REQUESTER).send(Envelope(id=1, requests=tuple(fitting(full * 2, 1 << 30))))


def test_only_neighbours_that_share_what_an_envelope_shares_travel_in_one() -> None:
    """The person, the period, the ticket and the payload are a request's own."""
    alike = [
        request(),
        request(5, person="85073099734", begin=20260101),
        request(enterprise="0999999922"),
    ]
    other = request(user="85073099734")
    rows = list(neighbours([*alike, other, other, *alike[:2], request(deadline_ms=5)]))
    assert rows == [[0, 1, 2], [3, 4], [5, 6], [7]]
    assert list(neighbours([])) == []


def test_ids_in_a_row_do_not_run_past_what_an_id_can_be() -> None:
    """They begin anew where too few are left."""
    line = Line(Pump.__new__(Pump))  # nothing is sent
    assert [line.next_numbers(), line.next_numbers(64), line.next_numbers()] == [1, 2, 66]
    line._last_number = 0xFFFF_FFFF - envelope_requests_max
    assert line.next_numbers(envelope_requests_max) == 0xFFFF_FFC0
    assert line.next_numbers(2) == 1
