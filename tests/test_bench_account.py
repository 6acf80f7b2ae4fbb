"""The judge of the crash bench: it finds an answer or a delivery that the log does not hold."""

import struct
import time
from pathlib import Path

import pytest

from bench.account import Account, Submitted, settle, submissions
from ksz_router.privacylog.entry import Entry, Kind, canonical
from ksz_router.privacylog.keys import make, quarter_of
from ksz_router.privacylog.writer import Writer

ANSWER, DELIVERY = struct.Struct(">16sHQ"), struct.Struct(">16s?Q")
ANSWERED, SILENT, UNKNOWN = 10001, 9004, 9010
NOW_NS = time.time_ns()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the keys of this quarter."""
    make(tmp_path / "keys", quarter_of(NOW_NS))
    return tmp_path / "keys"


def write(log: Path, keys: Path, *entries: tuple[Kind, int, int]) -> None:
    """Put entries into a log: kind, number of the exchange, code."""
    writer = Writer.open(
        log, slot="w0", node="n", keys_folder=keys, now_ns=NOW_NS, file_bytes=2 * 1024 * 1024
    )
    records = [
        canonical(Entry(kind=kind, at_us=NOW_NS // 1000, exchange=exchange(number), code=code))
        for kind, number, code in entries
    ]
    writer.commit(records, NOW_NS)
    writer.close()


def exchange(number: int) -> bytes:
    return number.to_bytes(16, "big")


def account(
    tmp_path: Path, keys: Path, answers: list[tuple[int, int]], delivered: list[int]
) -> Account:
    """What the bench says of these answers (exchange, code) and deliveries."""
    rows = b"".join(ANSWER.pack(exchange(n), code, 0) for n, code in answers)
    (tmp_path / "answers").write_bytes(rows)
    rows = b"".join(DELIVERY.pack(exchange(n), False, 0) for n in delivered)
    (tmp_path / "deliveries").write_bytes(rows)
    return settle(tmp_path / "log", keys, [tmp_path / "answers"], [tmp_path / "deliveries"])


def test_what_is_in_the_log_is_not_missing(tmp_path: Path, keys: Path) -> None:
    """A request with its outcome covers an answer, and a request alone a delivery."""
    write(
        tmp_path / "log", keys,
        (Kind.REQUEST, 1, 0), (Kind.REQUEST, 2, 0), (Kind.OUTCOME, 1, ANSWERED),
    )  # fmt: skip
    found = account(tmp_path, keys, [(1, ANSWERED)], [1, 2])
    assert (found.acknowledged, found.lost) == (1, 0)
    assert (found.delivered, found.unlogged) == (2, 0)


@pytest.mark.parametrize(
    "entries",
    [
        [(Kind.REQUEST, 1, 0)],
        [(Kind.OUTCOME, 1, ANSWERED)],
        [(Kind.REQUEST, 1, 0), (Kind.OUTCOME, 1, SILENT)],
        [(Kind.REQUEST, 2, 0), (Kind.OUTCOME, 2, ANSWERED)],
    ],
    ids=["no outcome", "no request", "another outcome", "another exchange"],
)
def test_an_answer_without_both_its_entries_is_lost(
    tmp_path: Path, keys: Path, entries: list[tuple[Kind, int, int]]
) -> None:
    """Request and outcome, and the outcome with the code that was answered."""
    write(tmp_path / "log", keys, *entries)
    assert account(tmp_path, keys, [(1, ANSWERED)], []).lost == 1


def test_a_delivery_of_a_refused_request_is_unlogged(tmp_path: Path, keys: Path) -> None:
    """Only the entry of a request that passed covers its delivery."""
    write(tmp_path / "log", keys, (Kind.REQUEST, 1, 5001), (Kind.REQUEST, 2, 0))
    assert account(tmp_path, keys, [], [1, 2, 3]).unlogged == 2


def test_outcomes_that_recovery_wrote_are_counted(tmp_path: Path, keys: Path) -> None:
    """What a crash left open is settled as unknown, and no answer was given for it."""
    write(tmp_path / "log", keys, (Kind.REQUEST, 1, 0), (Kind.OUTCOME, 1, UNKNOWN))
    assert account(tmp_path, keys, [], [1]).outcome_unknown == 1


def test_a_file_without_its_head_is_counted_and_what_it_held_is_lost(
    tmp_path: Path, keys: Path
) -> None:
    """Damage does not stop the count: that is the moment for which it is there."""
    write(tmp_path / "log", keys, (Kind.REQUEST, 1, 0), (Kind.OUTCOME, 1, ANSWERED))
    (tmp_path / "log" / "w0" / "000001.wal").write_bytes(b"")
    found = account(tmp_path, keys, [(1, ANSWERED)], [1])
    assert (found.lost, found.unlogged, found.unreadable_files) == (1, 1, 1)


@pytest.mark.parametrize(
    ("deliveries", "found"),
    [
        ([(1, False, 5), (2, False, 6)], Submitted(2, 0, 0, 0)),
        ([(1, False, 5), (1, True, 5), (2, True, 6)], Submitted(2, 2, 0, 0)),
        ([(1, False, 5), (1, False, 5), (2, False, 6)], Submitted(2, 0, 1, 0)),
        ([(1, False, 5), (3, True, 5), (2, False, 6)], Submitted(2, 1, 1, 0)),
        ([(1, False, 5), (9, True, 7)], Submitted(2, 1, 0, 1)),
    ],
    ids=["once", "repeats", "twice", "another id", "never"],
)
def test_a_submission_that_came_twice_or_never_is_found(
    tmp_path: Path, deliveries: list[tuple[int, bool, int]], found: Submitted
) -> None:
    """A repeat under the first id is none; everything answered with data was received."""
    rows = b"".join(DELIVERY.pack(exchange(n), *rest) for n, *rest in deliveries)
    (tmp_path / "received").write_bytes(rows)
    rows = ANSWER.pack(exchange(1), ANSWERED, 5) + ANSWER.pack(exchange(2), ANSWERED, 6)
    (tmp_path / "receipts").write_bytes(rows + ANSWER.pack(exchange(4), SILENT, 8))
    assert submissions(tmp_path / "receipts", tmp_path / "received") == found
