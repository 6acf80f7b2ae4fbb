"""What peers sent that may be malformed, and of any length: what of it can be used."""

from collections.abc import Callable

from ksz_router.codes import Code
from ksz_router.identifiers import is_application, is_insz, is_kbo
from ksz_router.limits import (
    framework_chars_max,
    further_persons_max,
    means_chars_max,
    payload_bytes_max,
    service_chars_max,
    ticket_chars_max,
)
from ksz_router.messages import Outcome, Reply, Request
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


# Looked up once: an Enum has its members found in Python.
_INVALID, _FOR_ANOTHER = Code.SOURCE_ANSWER_INVALID, Code.SOURCE_ANSWERED_FOR_ANOTHER
_OUTCOMES = {
    Outcome.DATA: Code.ANSWERED_WITH_DATA,
    Outcome.NO_DATA: Code.ANSWERED_WITHOUT_DATA,
    Outcome.IN_PART: Code.ANSWERED_IN_PART,
    Outcome.FAILED: Code.SOURCE_FAILED,
}


def code_of(reply: Reply, asked: str | None) -> Code:
    """What a source's reply comes to, judged against the person it was asked about.

    A field that is out of bounds, or not what it should be, makes all of it unusable.
    """
    persons, user, application = reply.persons, reply.user, reply.application
    if (
        len(reply.payload) > payload_bytes_max
        or (user is not None and not is_insz(user))
        or (application is not None and not is_application(application))
        or not reply.source_code.isascii()
        or (persons and (len(persons) > further_persons_max or not all(map(is_insz, persons))))
    ):
        return _INVALID
    if reply.person != asked:
        return _FOR_ANOTHER
    return _OUTCOMES[reply.outcome]
