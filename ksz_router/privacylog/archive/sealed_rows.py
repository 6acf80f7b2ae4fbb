"""The rows of ``p`` and ``u`` files as people read them."""

from typing import Final, NamedTuple

import msgspec

from ksz_router.codes import Code
from ksz_router.privacylog.archive.engine import Values
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.rows import Row

COLUMNS: Final = (
    "seq", "exchange", "at_us", "kind", "requester", "acting", "final_client", "sector", "type",
    "capacity", "legal_framework", '"user"', "application", "service",
    "service_version", "code", "replaced", "destinations", "generation", '"grant"', "basis",
    "violations", "outcome", "outcome_at_us", "recipients", "further_persons", "reader", "purpose",
)  # fmt: skip
_ANSWERED: Final = (Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITHOUT_DATA)


class _Recipient(msgspec.Struct):
    kbo: str
    code: int


class Later(msgspec.Struct, array_like=True):
    """A line of its own: the columns of ``LATER``."""

    exchange: bytes
    seq: int
    at_us: int
    outcome: int | None
    outcome_at_us: int | None
    recipients: list[_Recipient] | None
    further_persons: int

    def add_to(self, row: Row) -> None:
        if self.outcome is not None and self.outcome_at_us is not None:
            row.outcomes = (*row.outcomes, (self.outcome, self.outcome_at_us))
        row.recipients += tuple((each.kbo, each.code) for each in self.recipients or ())
        row.further_persons += self.further_persons


LATER: Final = Later.__struct_fields__


class Hit(NamedTuple):
    seq: int
    row: Row
    user: bytes | None
    """Token of who asked."""


def hit_of(values: Values) -> Hit:
    """Return the row that the columns of ``COLUMNS`` give."""
    fields = dict(zip(COLUMNS, values, strict=False))
    seq, user = fields.pop("seq"), fields.pop('"user"')
    assert isinstance(seq, int)
    assert user is None or isinstance(user, bytes)
    outcome = fields.pop("outcome"), fields.pop("outcome_at_us")
    recipients = msgspec.convert(fields.pop("recipients") or (), list[_Recipient])
    rest = {name.strip('"'): value for name, value in fields.items()}
    rest |= {
        "user": user is not None,
        "outcomes": () if outcome[0] is None else (outcome,),
        "recipients": [(each.kbo, each.code) for each in recipients],
    }
    return Hit(seq, msgspec.convert(rest, Row, builtin_types=(bytes,)), user)


def may_be_followed(row: Row) -> bool:
    """Say whether more than its first outcome may be known of an exchange.

    After an answer nothing comes: the source or the deadline failed it, or it has recipients.
    """
    if row.kind is not Kind.REQUEST or row.code:
        return False
    return bool(row.recipients) or not any(code in _ANSWERED for code, _ in row.outcomes)
