"""What was promised against what the privacy log holds, after all the crashes."""

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ksz_router.codes import Code
from ksz_router.privacylog.entry import Kind, parse, parse_head
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import End, LogCorrupt, scan
from ksz_router.privacylog.slots import file_numbers, file_of, slot_folders

_ANSWER, _DELIVERY = struct.Struct(">16sHQ"), struct.Struct(">16s?Q")


class Account(NamedTuple):
    """Counts of exchanges, but for the last three."""

    acknowledged: int
    """Answers with an exchange id that requesters got."""
    lost: int
    """Of these, those without their request, or without an outcome of the code answered."""
    unlogged: int
    """Deliveries that the source saw without a request that was passed."""
    delivered: int
    """Deliveries that sources saw."""
    outcome_unknown: int
    """Entries that recovery wrote for what a crash left open."""
    torn_tails: int
    """Files that end in the frame that was under way."""
    unreadable_files: int
    """Files that are damaged from their beginning."""


class Submitted(NamedTuple):
    """Counts of submissions, as their sender and their recipient saw them."""

    received: int
    """Different ones that their recipient has."""
    repeats: int
    """Deliveries that said that they might be repeats."""
    doubled: int
    """Submissions that came a second time as if it were the first, or under another exchange id."""
    undelivered: int
    """Submissions that were answered with data and that their recipient never had."""


def settle(
    log: Path, keys_folder: Path, answers: Sequence[Path], deliveries: Sequence[Path]
) -> Account:
    """Read the whole log once and say what is missing in it.

    Args:
        log: Folder of the privacy log, at rest.
        keys_folder: Its keys.
        answers: What generators saw.
        deliveries: What sources saw.
    """
    seen = [(exchange, code) for file in answers for exchange, code, _ in _rows(file, _ANSWER)]
    delivered = {exchange for file in deliveries for exchange, _, _ in _rows(file, _DELIVERY)}
    without_outcome = set(seen)
    without_request = {exchange for exchange, _ in seen}
    retries: dict[bytes, bytes] = {}
    """Exchange id of a retry → the one that it is answered with."""
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
                    first = parse(record).first
                    if first is not None:
                        retries[head.exchange] = first
            elif head.kind == Kind.OUTCOME:
                unknown += head.code == Code.OUTCOME_UNKNOWN
                exchange = retries.pop(head.exchange, head.exchange)
                without_outcome.discard((exchange, head.code))
                without_outcome.discard((head.exchange, head.code))

    keys = KeyRing(keys_folder)
    for slot in slot_folders(log):
        for number in file_numbers(slot):
            try:
                torn += scan(file_of(slot, number), keys, visit).end is End.TORN
            except LogCorrupt:
                unreadable += 1
    return Account(
        acknowledged=len(seen),
        lost=len(without_request | {exchange for exchange, _ in without_outcome}),
        unlogged=len(unlogged),
        delivered=len(delivered),
        outcome_unknown=unknown,
        torn_tails=torn,
        unreadable_files=unreadable,
    )


def submissions(answers: Path, deliveries: Path) -> Submitted:
    """Set what was answered to a sender against what its recipient was delivered."""
    names: defaultdict[int, set[bytes]] = defaultdict(set)
    doubled: set[int] = set()
    repeats = 0
    for exchange, is_repeat, number in _rows(deliveries, _DELIVERY):
        if names[number] and (not is_repeat or exchange not in names[number]):
            doubled.add(number)
        names[number].add(exchange)
        repeats += is_repeat
    answered = {
        number for _, code, number in _rows(answers, _ANSWER) if code == Code.ANSWERED_WITH_DATA
    }
    return Submitted(
        received=len(names),
        repeats=repeats,
        doubled=len(doubled),
        undelivered=len(answered - names.keys()),
    )


def _rows(file: Path, row: struct.Struct) -> Iterator[tuple[Any, ...]]:
    data = file.read_bytes()
    assert len(data) % row.size == 0, "a program that writes it was cut off"
    return row.iter_unpack(data)
