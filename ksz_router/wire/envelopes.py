"""Several requests in one message: taken apart into requests, and packed.

What comes behind the engine knows requests only: one road, however a request came.
"""

import msgspec

from ksz_router.messages import Envelope, Item, Request

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Item).decode

_UNREADABLE = Item(service="", version=0)
"""What is left of an item that is none: the control refuses a service without a name."""

_ID_MAX = 0xFFFF_FFFF


def packed(item: Item) -> msgspec.Raw:
    """Return an item as it stands in an envelope.

    Raises:
        msgspec.MsgspecError, UnicodeEncodeError, OverflowError, TypeError: no MessagePack says it.
    """
    return msgspec.Raw(_encode(item))


def requests_of(envelope: Envelope) -> list[Request]:
    """Return the requests of an envelope, in order; none where their ids would run out of range.

    They hold their own data and share the envelope's: the frame is not kept alive by them. An
    item that cannot be read hurts nobody but itself: it comes out as a request that is refused.
    """
    first = envelope.id
    if first + len(envelope.requests) - 1 > _ID_MAX:
        return []
    return [_request(first + n, envelope, _item(raw)) for n, raw in enumerate(envelope.requests)]


def _item(raw: msgspec.Raw) -> Item:
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _UNREADABLE


def _request(number: int, envelope: Envelope, item: Item) -> Request:
    return Request(
        id=number,
        service=item.service,
        version=item.version,
        ticket=item.ticket or envelope.ticket,
        user=envelope.user,
        application=envelope.application,
        means=envelope.means,
        level=envelope.level,
        kbo=envelope.kbo,
        sector=envelope.sector,
        type=envelope.type,
        capacity=envelope.capacity,
        legal_framework=envelope.legal_framework,
        member=envelope.member,
        final_client=envelope.final_client,
        person=item.person,
        enterprise=item.enterprise,
        begin=item.begin,
        end=item.end,
        source=item.source,
        deadline_ms=envelope.deadline_ms,
        payload=item.payload,
        unchanged=item.unchanged,
    )
