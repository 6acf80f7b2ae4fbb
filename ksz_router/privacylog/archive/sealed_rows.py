"""The rows of ``p`` and ``u`` files as people read them."""

from typing import Final, NamedTuple

import msgspec

from ksz_router.privacylog.archive.engine import Values
from ksz_router.privacylog.rows import Row

COLUMNS: Final = (
    "seq", "exchange", "at_us", "kind", "requester", "acting", "final_client", "sector", "type",
    "capacity", "legal_framework", '"user"', "application", "service",
    "service_version", "code", "replaced", "destinations", "generation", '"grant"', "basis",
    "violations", "outcome", "outcome_at_us", "recipients", "further_persons", "reader", "purpose",
)  # fmt: skip
_NAMES: Final = tuple(name.strip('"') for name in COLUMNS)


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
    fields = dict(zip(_NAMES, values, strict=False))
    seq, user = fields.pop("seq"), fields["user"]
    assert isinstance(seq, int)
    assert user is None or isinstance(user, bytes)
    outcome = fields.pop("outcome"), fields.pop("outcome_at_us")
    recipients = msgspec.convert(fields["recipients"] or (), list[_Recipient])
    fields["user"] = user is not None
    fields["outcomes"] = () if outcome[0] is None else (outcome,)
    fields["recipients"] = [(each.kbo, each.code) for each in recipients]
    return Hit(seq, msgspec.convert(fields, Row, builtin_types=(bytes,)), user)
