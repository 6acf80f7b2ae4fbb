"""What peers sent that may be malformed, and of any length: what of it can be used."""

from collections.abc import Callable

from ksz_router.identifiers import is_application, is_insz, is_kbo
from ksz_router.limits import (
    framework_chars_max,
    further_persons_max,
    means_chars_max,
    payload_bytes_max,
    service_chars_max,
    ticket_chars_max,
)
from ksz_router.messages import Reply, Request
from ksz_router.privacylog.entry import WITHHELD


def well_formed_part(request: Request) -> Request:
    """What of a refused request can stand in an entry.

    Not every field was judged: the others could be anything, and of any length.
    """
    return Request(
        id=request.id,
        service=public(request.service, service_chars_max),
        version=_small(request.version) or 0,
        ticket=request.ticket[:ticket_chars_max],
        user=_if(is_insz, request.user),
        application=_if(is_application, request.application),
        means=public(request.means, means_chars_max),
        level=_small(request.level) or 0,
        kbo=_if(is_kbo, request.kbo),
        sector=_small(request.sector),
        type=_small(request.type),
        capacity=_small(request.capacity),
        legal_framework=public(request.legal_framework or "", framework_chars_max) or None,
        member=_if(is_kbo, request.member),
        final_client=_if(is_kbo, request.final_client),
        person=_if(is_insz, request.person),
        enterprise=_if(is_kbo, request.enterprise),
        payload=request.payload,
    )


_DIGITS_MIN = 9
"""So many may be most of somebody's number."""


def _if(is_well_formed: Callable[[str], bool], text: str | None) -> str | None:
    return text if text is not None and is_well_formed(text) else None


def public(text: str, chars_max: int) -> str:
    """Text that a peer chose freely, unless somebody's number could be in it."""
    if len(text) < _DIGITS_MIN:
        return text  # as most are: there is nothing to count
    text = text[:chars_max]
    return WITHHELD if sum(map(text.count, "0123456789")) >= _DIGITS_MIN else text


def _small(number: int | None) -> int | None:
    return number if number is not None and 0 <= number < 1 << 31 else None


def is_well_formed(reply: Reply) -> bool:
    """Say whether a reply may be judged: every field is within bounds and what it should be."""
    persons, user, application = reply.persons, reply.user, reply.application
    return (
        len(reply.payload) <= payload_bytes_max
        and (user is None or is_insz(user))
        and (application is None or is_application(application))
        and reply.source_code.isascii()
        and (not persons or (len(persons) <= further_persons_max and all(map(is_insz, persons))))
    )
