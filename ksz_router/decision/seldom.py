"""What few services ask for, and so is settled apart: most requests meet none of these rules."""

from ksz_router.codes import Code
from ksz_router.decision.case import Case, Refusal, Standing
from ksz_router.model import OPEN, Availability, FilledBy, Mode, Subject


def settle(standing: Standing) -> None:
    """Settle which directories have a word in this, and whether no other of these rules does."""
    _settle_networks(standing)
    standing.is_plain = (
        standing.is_clear
        and standing.service.filled_by is FilledBy.EITHER
        and not standing.networks
        and not standing.asks
        and not any(_is_narrow(source.row) for source in standing.sources)
    )


def _settle_networks(standing: Standing) -> None:
    if standing.service.subject is not Subject.PERSON:
        return
    if standing.own is not None and standing.acting.is_sectoral:
        standing.own_network = standing.acting.secondary_network
    rows = [source.row for source in standing.sources]
    rows = [row for row in rows if row.is_sectoral and row.mode is not Mode.NONE]
    is_hosted = standing.acting.keeper is None
    names = (
        standing.own_network if is_hosted else "",
        *(row.secondary_network for row in rows if row.keeper is None),
    )
    standing.networks = tuple(dict.fromkeys(filter(None, names)))
    own_asks = bool(standing.own_network) and not is_hosted
    standing.asks = own_asks or any(row.keeper is not None for row in rows)


def _is_narrow(row: Availability) -> bool:
    """Whether a row fits some requests only, for reasons other than whom it knows."""
    return row.changes_only or row.data_begin > 0 or row.data_end < OPEN


def destination_named(case: Case) -> Refusal | None:
    """Where the service says who fills in the destination, it is filled in by them (M and Z)."""
    filled_by, is_named = case.standing.service.filled_by, case.request.source is not None
    if filled_by is FilledBy.EITHER or is_named == (filled_by is FilledBy.SENDER):
        return None
    return Refusal(Code.FIELD_MALFORMED, "source")
