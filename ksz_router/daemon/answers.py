"""From an outcome to the typed answer that the requester gets."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from ksz_router import __version__
from ksz_router.codes import MEANINGS, Action, Code
from ksz_router.daemon.opened import Errand, Exchange
from ksz_router.decision import Destination, Forward, Refusal
from ksz_router.ledger import NO_DIGEST, Earlier
from ksz_router.messages import Answer, RecipientStatus, Reply, Request
from ksz_router.model import OPEN, Distribution, Kind
from ksz_router.wire import VERSION

RETRY_AFTER_MS = 1_000
"""When to come back after a bound was reached and nothing better is known."""

_FIXED = {
    code: (int(code), int(code.stage), meaning.official, meaning.status, int(meaning.action))
    for code, meaning in MEANINGS.items()
}
"""What an answer says beside its code."""

_RETRIED = {code for code, meaning in MEANINGS.items() if meaning.action is Action.RETRY_AT}

Moment: TypeAlias = Callable[[Exchange], int]
"""Says when a retry may come to more, Unix milliseconds; asked only where the code says so."""


def _never(_: Exchange) -> int:
    return 0


def not_admitted(request: Request, code: Code, *, limit: int, now_ms: int) -> Answer:
    """The answer to a request that was turned away before the control; it has no exchange."""
    detail = {"limit": str(limit)} if limit else {}
    return _answer(request.id, b"", code, "", detail=detail, retry_at_ms=now_ms + RETRY_AFTER_MS)


def refusal(exchange: Exchange, verdict: Refusal) -> Answer:
    """The answer to a request that the control refused."""
    detail = {}
    if verdict.field:
        detail["field"] = verdict.field
    if verdict.replaced_by:
        detail["newSSIN"] = verdict.replaced_by
    if verdict.deceased:
        detail["deceaseDate"] = str(verdict.deceased)
    if verdict.limit:
        detail["limit"] = str(verdict.limit)
    return _answer(
        exchange.request.id,
        exchange.id,
        verdict.code,
        exchange.generation,
        detail=detail,
        retry_at_ms=verdict.retry_at_ms or None,
    )


def bare(exchange: Exchange, code: Code, retry_at_ms: Moment = _never) -> Answer:
    """The answer that the router gives in place of another, and that says only why."""
    return _answer(
        exchange.request.id,
        exchange.id,
        code,
        exchange.generation,
        retry_at_ms=_if_later(code, exchange, retry_at_ms),
    )


def earlier(exchange: Exchange, held: Earlier, retry_at_ms: Moment) -> Answer:
    """The answer to a retry: what became of the submission before, without its payload."""
    verdict = exchange.verdict
    assert isinstance(verdict, Forward)
    recipients = _statuses(held.codes) + _spared(exchange)
    codes = [Code(recipient.code) for recipient in recipients]
    code = _overall(codes, verdict) if verdict.service.kind is Kind.DISTRIBUTION else codes[0]
    detail = {"retry": exchange.id.hex()}
    if held.digest != NO_DIGEST:
        detail["payloadDigest"] = held.digest.hex()
    return _answer(
        exchange.request.id,
        held.first,
        code,
        exchange.generation,
        detail=detail,
        retry_at_ms=_if_later(code, exchange, retry_at_ms),
        recipients=recipients,
    )


def outcome(
    errand: Errand, verdict: Forward, code: Code, reply: Reply | None, retry_at_ms: Moment
) -> Answer:
    """The answer once the one destination is settled."""
    exchange, asked = errand.exchange, verdict.destinations[0]
    plain, stage, official, status, action = _FIXED[code]
    is_first_of_all = (
        exchange.submission is None
        and asked.data_begin <= verdict.begin
        and asked.data_end >= verdict.end
    )
    return Answer(
        exchange.request.id,
        exchange.id if is_first_of_all else _first(exchange),
        plain,
        stage,
        official,
        status,
        action,
        exchange.generation,
        {} if is_first_of_all else _detail(exchange, verdict),
        retry_at_ms(exchange) if code in _RETRIED else None,
        0,  # router_us: it is not over
        (errand.answered_ns - errand.sent_ns) // 1000,
        (RecipientStatus(errand.kbo, plain, errand.source_code),),
        reply.persons if reply is not None else (),
        reply.payload if reply is not None else b"",
    )


def distributed(exchange: Exchange, verdict: Forward, retry_at_ms: Moment) -> Answer:
    """The answer once every recipient of a distribution is settled; it passes on no payload."""
    errands, granted = exchange.errands, exchange.granted
    recipients = (
        *[RecipientStatus(errand.kbo, errand.code or 0, errand.source_code) for errand in errands],
        *_spared(exchange),
        *(_statuses(granted.earlier) if granted is not None else ()),
    )
    code = _overall([Code(recipient.code) for recipient in recipients], verdict)
    return _answer(
        exchange.request.id,
        _first(exchange),
        code,
        exchange.generation,
        detail=_detail(exchange, verdict),
        retry_at_ms=_if_later(code, exchange, retry_at_ms),
        source_us=max(errand.answered_ns - errand.sent_ns for errand in errands) // 1000,
        recipients=recipients,
    )


def under(answer: Answer, code: Code) -> Answer:
    """Return an answer under another code."""
    plain, stage, official, status, action = _FIXED[code]
    return msgspec.structs.replace(
        answer, code=plain, stage=stage, official=official, status=status, action=action
    )


def connection_test(exchange: Exchange, peer: dict[str, str]) -> Answer:
    """The answer of the router's own test-connection service: how it sees the caller."""
    caller = exchange.facts.caller
    assert caller is not None
    seen = {
        "institution": caller.kbo,
        "name": caller.name,
        "roles": [f"{role.sector}/{role.type}" for role in caller.roles],
        "members": list(caller.members),
        "uri": exchange.session.uri,
        "protocol": VERSION,
        "router": __version__,
        "generation": exchange.generation,
        **peer,
    }
    return _answer(
        exchange.request.id,
        exchange.id,
        Code.ANSWERED_WITH_DATA,
        exchange.generation,
        payload=msgspec.json.encode(seen),
    )


def _first(exchange: Exchange) -> bytes:
    """Return the id of the first attempt."""
    granted = exchange.granted
    return granted.first if granted is not None else exchange.id


def _detail(exchange: Exchange, verdict: Forward) -> dict[str, str]:
    """What is told of an attempt that is not the first, and of data that are not for all days."""
    detail = {"retry": exchange.id.hex()} if _first(exchange) != exchange.id else {}
    for asked in verdict.destinations[:1]:
        if asked.data_begin > verdict.begin or asked.data_end < verdict.end:
            detail |= _data_period(asked)
    return detail


def _data_period(asked: Destination) -> dict[str, str]:
    """Of which days the source that was asked holds data, where that is not all that was asked."""
    detail = {}
    if asked.data_begin:
        detail["dataBegin"] = str(asked.data_begin)
    if asked.data_end != OPEN:
        detail["dataEnd"] = str(asked.data_end)
    return detail


def _if_later(code: Code, exchange: Exchange, retry_at_ms: Moment) -> int | None:
    return retry_at_ms(exchange) if code in _RETRIED else None


def _statuses(codes: Mapping[str, int]) -> tuple[RecipientStatus, ...]:
    """How recipients did in an earlier attempt."""
    return tuple(RecipientStatus(kbo, code) for kbo, code in codes.items())


def _spared(exchange: Exchange) -> tuple[RecipientStatus, ...]:
    """Recipients of a distribution that were left out for an announced outage."""
    code = int(Code.ANNOUNCED_OUTAGE)
    return tuple(RecipientStatus(kbo, code) for kbo in exchange.left_out)


def _overall(codes: list[Code], verdict: Forward) -> Code:
    """One code for a distribution: the common one, or that only a part was reached.

    Recipients that took it with something to say and with nothing have both been reached. Under
    distribution code Z one that received it and answered is enough.
    """
    if verdict.service.distribution is Distribution.SUBMISSION:
        reached = [code for code in codes if code >= Code.ANSWERED_WITH_DATA]
        codes = reached or codes
    distinct = set(codes)
    if len(distinct) == 1 or distinct == {Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITHOUT_DATA}:
        return min(distinct)
    return (
        Code.ANSWERED_IN_PART
        if any(code >= Code.ANSWERED_WITH_DATA for code in codes)
        else (max(codes))
    )


def _answer(
    number: int,
    exchange: bytes,
    code: Code,
    generation: str,
    *,
    detail: dict[str, str] | None = None,
    retry_at_ms: int | None = None,
    source_us: int = 0,
    recipients: tuple[RecipientStatus, ...] = (),
    persons: tuple[str, ...] = (),
    payload: bytes = b"",
) -> Answer:
    plain, stage, official, status, action = _FIXED[code]
    return Answer(
        id=number,
        exchange=exchange,
        code=plain,
        stage=stage,
        official=official,
        status=status,
        action=action,
        generation=generation,
        detail=detail or {},
        retry_at_ms=retry_at_ms,
        source_us=source_us,
        recipients=recipients,
        persons=persons,
        payload=payload,
    )
