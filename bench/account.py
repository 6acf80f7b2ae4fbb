"""What was promised against what the privacy log holds, after all the crashes."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ksz_router.codes import Code
from ksz_router.privacylog.entry import Kind, parse_head
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import End, LogCorrupt, scan
from ksz_router.privacylog.slots import file_numbers, file_of, slot_folders

_EXCHANGE_BYTES, _CODE_BYTES = 16, 2


class Account(NamedTuple):
    """Counts of exchanges, but for the last three."""

    acknowledged: int
    """Answers with an exchange id that requesters got."""
    lost: int
    """Of these, those without their request, or without an outcome of the code answered."""
    unlogged: int
    """Deliveries that the source saw without a request that was passed."""
    delivered: int
    """Deliveries that the source saw."""
    outcome_unknown: int
    """Entries that recovery wrote for what a crash left open."""
    torn_tails: int
    """Files that end in the frame that was under way."""
    unreadable_files: int
    """Files that are damaged from their beginning."""


def settle(log: Path, keys_folder: Path, answers: Path, deliveries: Path) -> Account:
    """Read the whole log once and say what is missing in it.

    Args:
        log: Folder of the privacy log, at rest.
        keys_folder: Its keys.
        answers: What the generator saw: exchange id and code, 18 bytes each.
        deliveries: What the source saw: exchange id, 16 bytes each.
    """
    seen = [
        (row[:_EXCHANGE_BYTES], int.from_bytes(row[_EXCHANGE_BYTES:], "big"))
        for row in _rows(answers, _EXCHANGE_BYTES + _CODE_BYTES)
    ]
    delivered = set(_rows(deliveries, _EXCHANGE_BYTES))
    without_outcome = dict(seen)
    without_request = set(without_outcome)
    unlogged = set(delivered)
    unknown = torn = unreadable = 0

    def visit(frame: Frame) -> None:
        nonlocal unknown
        for record in frame.records:
            head = parse_head(record)
            if head.exchange is None:
                continue
            if head.kind == Kind.REQUEST:
                without_request.discard(head.exchange)
                if head.code == 0:
                    unlogged.discard(head.exchange)
            elif head.kind == Kind.OUTCOME:
                unknown += head.code == Code.OUTCOME_UNKNOWN
                if without_outcome.get(head.exchange) == head.code:
                    del without_outcome[head.exchange]

    keys = KeyRing(keys_folder)
    for slot in slot_folders(log):
        for number in file_numbers(slot):
            try:
                torn += scan(file_of(slot, number), keys, visit).end is End.TORN
            except LogCorrupt:
                unreadable += 1
    return Account(
        acknowledged=len(seen),
        lost=len(without_request | without_outcome.keys()),
        unlogged=len(unlogged),
        delivered=len(delivered),
        outcome_unknown=unknown,
        torn_tails=torn,
        unreadable_files=unreadable,
    )


def _rows(file: Path, size: int) -> Iterator[bytes]:
    data = file.read_bytes()
    assert len(data) % size == 0, "a program that writes it was cut off"
    return (data[at : at + size] for at in range(0, len(data), size))
