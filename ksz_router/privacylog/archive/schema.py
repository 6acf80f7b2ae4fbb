"""The columns of the sealed files. This is format: ``docs/privacylog-format.md`` describes it.

Kinds of files:

``t``  truth: one row an entry, in the order of leaves; its row gives the canonical bytes back.
``p``  by person: one row for an exchange and each person it concerned.
``u``  by use: one row for an exchange and each institution that took part.
``k``  keys: one row for an entry and each reference by which it may be asked for.
``r``  rollup: how many exchanges, by month, institutions, service and verdict.

All but ``t`` are derived and can be made anew from it. Every file begins with the columns that make
it loadable as Iceberg: ``q`` (quarter), ``b`` (part of its run, from 0) and ``node``.
"""

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

_TOKEN = pa.binary(16)
_DIGEST = pa.binary(32)
_TEXT = pa.string()
_TEXTS = pa.list_(pa.field("item", _TEXT, nullable=False))
_I16, _I32, _I64 = pa.int16(), pa.int32(), pa.int64()

_PLACE = [("q", _TEXT), ("b", _I16), ("node", _TEXT)]

_LINE = [
    (f"line_{name}", _I32)
    for name in ("sector", "type", "capacity", "phase", "begin", "end", "changed")
]
"""The deciding line of an entry, a column a field; all seven are null where it has none."""

TRUTH = pa.schema(
    [
        *_PLACE,
        ("seq", _I64),  # index of the leaf, from 0
        ("slot", _TEXT),
        ("record", _I64),  # number of the record in its slot, from 0
        # From here on the fields of an entry, under their names and in their order.
        ("version", _I16),
        ("kind", _I16),
        ("at_us", _I64),
        ("exchange", _TOKEN),
        ("code", _I32),
        ("stage", _I16),
        ("service", _TEXT),
        ("service_version", _I32),
        ("requester", _TEXT),
        ("acting", _TEXT),
        ("final_client", _TEXT),
        ("sector", _I32),
        ("type", _I32),
        ("capacity", _I32),
        ("legal_framework", _TEXT),
        ("user", _TOKEN),
        ("application", _TEXT),
        ("means", _TEXT),
        ("level", _I32),
        ("ticket", _TOKEN),
        ("person", _TOKEN),
        ("asked", _TOKEN),
        ("enterprise", _TEXT),
        ("begin", _I32),
        ("end", _I32),
        ("destinations", _TEXTS),
        ("generation", _TEXT),
        ("rights_version", _I64),
        ("directory_version", _I64),
        ("grant", _TEXT),
        ("basis", _TEXT),
        *_LINE,
        ("violations", _TEXTS),
        ("request_bytes", _I32),
        ("answer_bytes", _I32),
        ("digest", _DIGEST),
        ("router_us", _I64),
        ("source_us", _I64),
        ("counts", pa.list_(pa.field("item", pa.struct([("code", _I32), ("n", _I64)])))),
        ("reader", _TEXT),
        ("purpose", _TEXT),
        ("attempt", _I32),
        ("first", _TOKEN),
        ("content", _TOKEN),
    ]
)

_EXCHANGE = [
    ("at_us", _I64),  # of the first entry
    ("exchange", _TOKEN),  # null: a READING
    ("seq", _I64),  # leaf of the first entry
    ("kind", _I16),  # REQUEST or READING; another where the request lies in an earlier row
    ("requester", _TEXT),
    ("acting", _TEXT),
    ("final_client", _TEXT),
    ("sector", _I32),
    ("type", _I32),
    ("capacity", _I32),
    ("legal_framework", _TEXT),
    ("user", _TOKEN),  # that asked
    ("application", _TEXT),
    ("service", _TEXT),
    ("service_version", _I32),
    ("code", _I32),  # the verdict: 0 for Forward, else the refusal
    ("replaced", pa.bool_()),
    ("destinations", _TEXTS),
    ("generation", _TEXT),
    ("grant", _TEXT),
    ("basis", _TEXT),
    ("violations", _TEXTS),
    ("outcome", _I32),  # code of the first outcome; null: none
    ("outcome_at_us", _I64),
    # Of what is rare: the recipients of a distribution. A later outcome has a row of its own.
    ("recipients", pa.list_(pa.field("item", pa.struct([("kbo", _TEXT), ("code", _I32)])))),
    ("further_persons", _I32),
    ("reader", _TEXT),
    ("purpose", _TEXT),
]
"""An exchange as people read it (``rows.Row``), with the user's token."""

PERSON = pa.schema([*_PLACE, ("person", _TOKEN), *_EXCHANGE])
"""Sorted by person, at_us, seq."""

USE = pa.schema([*_PLACE, ("institution", _TEXT), ("member", _TOKEN), *_EXCHANGE])
"""Sorted by institution, member, at_us, seq; null comes first. ``member`` is the institution's own
user: of the requester, acting member and final client, who asked; of a destination, who supplied.
It is a token, or ``APPL:`` and the eleven digits of a program number where no user is named. Every
exchange and READING has a row of its requester; of the empty text where that is null.
"""

KEY = pa.schema([*_PLACE, ("key", _TOKEN), ("seq", _I64)])
"""Sorted by key, seq. A key is an exchange id, of every entry, or the hash of a ticket, of a
REQUEST; each of them random enough not to be taken for one of the other kind."""

ROLLUP = pa.schema(
    [
        *_PLACE,
        ("month", _I32),  # yyyymm, Brussels
        ("requester", _TEXT),
        ("sector", _I32),
        ("type", _I32),
        ("capacity", _I32),
        ("legal_framework", _TEXT),
        ("service", _TEXT),
        ("service_version", _I32),
        ("destination", _TEXT),  # the first of them
        ("code", _I32),  # verdict
        ("outcome", _I32),
        ("violation", pa.bool_()),
        ("exchanges", _I64),
        ("router_us", _I64),  # sums
        ("source_us", _I64),
        ("over_1s", _I64),  # time inside the router beyond one second, and two
        ("over_2s", _I64),
    ]
)
"""One row a combination, in the order of its columns."""

SCHEMAS: Final = {"t": TRUTH, "p": PERSON, "u": USE, "k": KEY, "r": ROLLUP}

SORTED_BY: Final = {
    "t": ("seq",),
    "p": ("person", "at_us", "seq"),
    "u": ("institution", "member", "at_us", "seq"),
    "k": ("key", "seq"),
    "r": tuple(ROLLUP.names[3:-5]),
}
