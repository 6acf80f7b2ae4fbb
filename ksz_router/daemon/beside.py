"""The entries that stand beside that of an outcome, made of it: few exchanges have any."""

from collections.abc import Sequence

import msgspec

from ksz_router.codes import Code
from ksz_router.privacylog.entry import Entry, Kind, canonical, parse


def further(ended: bytes, persons: Sequence[bytes]) -> list[bytes]:
    """Return one entry for each further person of an answer.

    Args:
        ended: The entry of how the exchange, or one recipient of it, ended.
        persons: Tokens of those whom the source declared; who is named twice has one entry.
    """
    if not persons:
        return []
    entry = parse(ended)
    return [
        canonical(
            Entry(
                kind=Kind.FURTHER,
                at_us=entry.at_us,
                exchange=entry.exchange,
                code=entry.code,
                stage=entry.stage,
                service=entry.service,
                service_version=entry.service_version,
                requester=entry.requester,
                acting=entry.acting,
                person=person,
                destinations=entry.destinations,
            )
        )
        for person in dict.fromkeys(persons)
    ]


def spared(ended: bytes, recipients: Sequence[str]) -> list[bytes]:
    """Return one entry for each recipient of a distribution that was spared for its outage.

    Args:
        ended: The entry of the outcome of the distribution.
        recipients: Their KBO numbers.
    """
    if not recipients:
        return []
    code = Code.ANNOUNCED_OUTAGE
    entry = msgspec.structs.replace(
        parse(ended),
        kind=Kind.RECIPIENT,
        code=int(code),
        stage=int(code.stage),
        router_us=0,
    )
    return [canonical(msgspec.structs.replace(entry, destinations=(kbo,))) for kbo in recipients]
