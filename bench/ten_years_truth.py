"""Truth tables of ten years, a quarter at a time, made by column: ten million rows in a minute.

Each exchange takes its pattern (who, which service, under what grant) from one that ``Traffic``
made, and everything that does not repeat is drawn anew: ids, times, persons, users, tickets. What
is drawn stands in the columns as the writers would have put it there: tokens of persons and users
are made with the keys of the quarter, exchange ids are UUIDv7, and requests and outcomes are in
the order of their time.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bench.large import INSTITUTIONS
from bench.traffic import PERSONS, USERS, Traffic, insz_body, kbo
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.schema import TRUTH
from ksz_router.privacylog.keys import (
    QuarterKeys,
    Tokens,
    quarter_after,
    quarter_begin_ns,
)

NODE, SLOT = "router-a", "w0"
TICKETS_PER_QUARTER = 8
"""Exchanges of a quarter whose ticket is known, so that it can be asked for."""

_EDGE_US = 7_200_000_000
Numbers = npt.NDArray[np.int64]


class Quarter(NamedTuple):
    """What a quarter is made of."""

    keys: QuarterKeys
    first_leaf: int
    exchanges: int
    persons: int
    """How many there are; person ``n`` has the number ``insz(n)``."""
    seed: int


def known_ticket(quarter: str, at: int) -> tuple[str, str]:
    """Return requester and ticket of the ``at``-th exchange that can be asked for by it."""
    return kbo(0), f"known-{quarter}-{at}"


def tokens_of(numbers: Numbers, key: bytes) -> npt.NDArray[np.uint8]:
    """Return the tokens of ``insz(n)`` for each n, one row of 16 bytes each."""
    body = insz_body(numbers)
    digits = body * 100 + (97 - body % 97)
    blocks = np.empty((len(numbers), 16), np.uint8)
    blocks[:, :5] = np.frombuffer(b"INSZ:", np.uint8)
    for place in range(15, 4, -1):
        digits, last = np.divmod(digits, 10)
        blocks[:, place] = last + ord("0")
    cipher = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    return np.frombuffer(cipher.update(blocks.tobytes()), np.uint8).reshape(-1, 16)


class Patterns:
    """Exchanges that others take their pattern from: their requests, and their outcomes."""

    def __init__(self, keys: QuarterKeys, count: int, seed: int) -> None:
        traffic = Traffic(Tokens(keys), seed=seed)
        requests: list[bytes] = []
        outcomes: list[bytes] = []
        number_of = {kbo(n): n for n in range(INSTITUTIONS)}
        requesters = []
        while len(requests) < count:
            exchange = traffic.asked()
            made = traffic.request(exchange)
            if exchange.destinations:
                made += traffic.outcome(exchange, traffic.replied(exchange))
            requests.append(made[0])
            outcomes.append(made[1])
            requesters.append(number_of[exchange.facts.caller.kbo])  # type: ignore[union-attr]
        self.requests, self.outcomes = _table(requests), _table(outcomes)
        self.requesters = np.array(requesters)
        self.has_user = self.requests["user"].is_valid().to_numpy()
        self.is_submission = self.requests["content"].is_valid().to_numpy()
        self.is_refused = self.requests["code"].to_numpy() != 0


def _table(records: Sequence[bytes]) -> pa.Table:
    return to_table(
        records,
        first_seq=0,
        q="",
        node=NODE,
        slots=pa.repeat(pa.scalar(SLOT), len(records)),
        record_numbers=np.arange(len(records)),
    )


def truth(quarter: Quarter, patterns: Patterns, rows_max: int) -> Iterator[pa.Table]:
    """Yield the entries of a quarter in the order of their leaves, so many rows at a time.

    No exchange is open where a table ends, and none at the end of the quarter.
    """
    random = np.random.default_rng(quarter.seed)
    name = quarter.keys.quarter
    begin_us = quarter_begin_ns(name) // 1000 + _EDGE_US
    end_us = quarter_begin_ns(quarter_after(name)) // 1000 - _EDGE_US
    per_table = rows_max // 2
    tables = -(-quarter.exchanges // per_table)
    edges = np.linspace(begin_us, end_us, tables + 1).astype(np.int64)
    leaf = quarter.first_leaf
    known = 0
    for at in range(tables):
        count = min(per_table, quarter.exchanges - at * per_table)
        wanted = [known_ticket(name, n) for n in range(known, TICKETS_PER_QUARTER)]
        wanted = wanted[: -(-TICKETS_PER_QUARTER // tables)]
        known += len(wanted)
        between_us = (int(edges[at]), int(edges[at + 1]))
        drawn = _Drawn(quarter, random, count, between_us, wanted)
        table = _exchanges(drawn, patterns)
        yield _placed(table, name, leaf)
        leaf += len(table)


class _Drawn(NamedTuple):
    """What one table is drawn from."""

    quarter: Quarter
    random: np.random.Generator
    exchanges: int
    between_us: tuple[int, int]
    tickets: Sequence[tuple[str, str]]


def _exchanges(drawn: _Drawn, patterns: Patterns) -> pa.Table:
    quarter, random, count, between_us, tickets = drawn
    pattern = random.integers(len(patterns.requesters), size=count)
    if tickets:  # those of the one institution whose tickets are known
        own = np.flatnonzero(patterns.requesters == 0)
        pattern[: len(tickets)] = random.choice(own, len(tickets))
    asked_us = np.sort(random.integers(*between_us, size=count))
    keys = quarter.keys
    person = _tokens(random.integers(quarter.persons, size=count), keys.person)
    users = PERSONS + patterns.requesters[pattern] * USERS + random.integers(USERS, size=count)
    hashes = _random_tokens(random, count)
    hashed = Tokens(keys)
    for at, (requester, ticket) in enumerate(tickets):
        hashes[at] = np.frombuffer(hashed.ticket(requester, ticket), np.uint8)
    ids = _exchange_ids(random, asked_us)
    digest = random.integers(256, size=(count, 32), dtype=np.uint8)
    submitted = patterns.is_submission[pattern]
    requests = patterns.requests.take(pa.array(pattern))
    outcomes = patterns.outcomes.take(pa.array(pattern))
    took_us = outcomes["router_us"].to_numpy() + outcomes["source_us"].to_numpy()
    requests = _with(
        requests,
        at_us=pa.array(asked_us),
        exchange=ids,
        person=person,
        user=_masked(tokens_of(users, keys.user), patterns.has_user[pattern]),
        ticket=_binary(hashes),
        digest=_masked(digest, submitted),
        content=_masked(_random_tokens(random, count), submitted),
    )
    outcomes = _with(
        outcomes,
        at_us=pa.array(np.minimum(asked_us + took_us, between_us[1] - 1)),
        exchange=ids,
        person=_where(person, ~patterns.is_refused[pattern]),
        digest=_masked(digest[::-1], submitted),
    )
    both = pa.concat_tables([requests, outcomes])
    order = np.argsort(both["at_us"].to_numpy(), kind="stable")
    return both.take(pa.array(order)).combine_chunks()


def _placed(table: pa.Table, quarter: str, first_leaf: int) -> pa.Table:
    leaves = pa.array(np.arange(first_leaf, first_leaf + len(table)))
    return _with(table, q=pa.repeat(pa.scalar(quarter), len(table)), seq=leaves, record=leaves)


def _with(table: pa.Table, **columns: pa.Array) -> pa.Table:
    for name, column in columns.items():
        at = TRUTH.get_field_index(name)
        table = table.set_column(at, TRUTH.field(at), column)
    return table


def _tokens(numbers: Numbers, key: bytes) -> pa.Array:
    return _binary(tokens_of(numbers, key))


def _random_tokens(random: np.random.Generator, count: int) -> npt.NDArray[np.uint8]:
    return random.integers(256, size=(count, 16), dtype=np.uint8)


def _exchange_ids(random: np.random.Generator, at_us: Numbers) -> pa.Array:
    """UUIDv7 (RFC 9562, 5.7)."""
    ids = _random_tokens(random, len(at_us))
    ids[:, :6] = (at_us // 1000).astype(">i8").view(np.uint8).reshape(-1, 8)[:, 2:]
    ids[:, 6] = 0x70 | ids[:, 6] & 0x0F
    ids[:, 8] = 0x80 | ids[:, 8] & 0x3F
    return _binary(ids)


def _binary(cells: npt.NDArray[np.uint8]) -> pa.Array:
    count, width = cells.shape
    data = pa.py_buffer(np.ascontiguousarray(cells))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, data])


def _masked(cells: npt.NDArray[np.uint8], kept: npt.NDArray[np.bool_]) -> pa.Array:
    return _where(_binary(cells), kept)


def _where(column: pa.Array, kept: npt.NDArray[np.bool_]) -> pa.Array:
    bits = pa.py_buffer(np.packbits(kept, bitorder="little"))
    return pa.FixedSizeBinaryArray.from_buffers(
        column.type, len(column), [bits, column.buffers()[1]], null_count=int((~kept).sum())
    )
