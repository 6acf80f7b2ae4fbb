"""``ksz-router log replay``: decide again on what the log records, under the archived rulebook."""

import argparse
import importlib.util
import json
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.log_days import parse_day
from ksz_router.cli.log_place import Place, add_place, place_of
from ksz_router.cli.reading import Reading, add_reading
from ksz_router.config import load
from ksz_router.days import brussels_midnight_ns, next_day
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.keys import KeyRing
from ksz_router.replay.again import Replayed, State
from ksz_router.replay.compare import code_name
from ksz_router.replay.replay import Conversation, Replay, Stretch

EXCHANGES_MAX = 1_000

_EXAMPLES = """\
examples:
  # was this exchange rightly passed, or rightly refused?
  ksz-router log replay --purpose "complaint 2026/118" \\
      --exchange 019aa3c5-6f00-7000-8000-0123456789ab

  # every request of a day: counts, and each alarm
  ksz-router log replay --purpose "audit 7" --from 2026-11-20 --to 2026-11-20

  # a copy of the log, with a copy of its keys and of the rulebook's store
  ksz-router log replay --purpose "audit 7" --log /mnt/copy/privacylog --keys /mnt/copy/keys \\
      --rulebook /mnt/copy/rulebook --exchange 019aa3c5-6f00-7000-8000-0123456789ab

An alarm says in which field the record and the archived rulebook disagree. What is decided again
and what is taken from the record stands in docs/operations.md.
exit status: 0 the same verdict each time; 1 an alarm, or something could not be decided; 2 wrong
usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    add_reading(parser)
    parser.add_argument(
        "--exchange", action="append", default=[], metavar="UUID", help="may be given several times"
    )
    parser.add_argument("--from", dest="from_day", metavar="YYYY-MM-DD", help="first Brussels day")
    parser.add_argument("--to", dest="to_day", metavar="YYYY-MM-DD", help="last Brussels day")
    parser.add_argument(
        "--rulebook", type=Path, metavar="DIR", help="the store of the generations of a copy"
    )
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Replay, and say where it differs."""
    if bool(arguments.exchange) == (arguments.from_day is not None):
        raise UsageError("give --exchange, or --from and --to for all requests of some days")
    place, store = place_of(arguments), _store(arguments)
    if arguments.exchange:
        exchanges = [_exchange(text) for text in dict.fromkeys(arguments.exchange)]
        if len(exchanges) > EXCHANGES_MAX:
            raise UsageError(f"--exchange: at most {EXCHANGES_MAX}; give days instead")
        return _exchanges(arguments, place, store, exchanges)
    return _stretch(arguments, place, store)


def _store(arguments: argparse.Namespace) -> Path:
    if arguments.rulebook is not None:
        return Path(arguments.rulebook)
    if arguments.log is not None:
        raise UsageError("give --rulebook with --log and --keys: the generations of that copy")
    return Path(load(arguments.config).tables.rulebook)


def _exchanges(
    arguments: argparse.Namespace, place: Place, store: Path, exchanges: Sequence[bytes]
) -> int:
    reading = Reading(place.log, place.keys, place.node, "log replay", arguments)
    reading.record(())  # whom they concern is not known before they are read
    with closing(Replay(place.log, place.keys, store)) as replay:
        found = replay.find(exchanges)
        for conversation in found:
            if not conversation.requests:
                _take_sealed(conversation, place)
        recorded = [[replay.numbers(entry) for entry in one.requests] for one in found]
        persons = [(r.user, r.person, r.asked) for some in recorded for r in some]
        for user, *numbers in dict.fromkeys(persons):
            reading.record([number for number in numbers if number is not None], user=user)
        is_same = not replay.damaged
        for conversation, requests in zip(found, recorded, strict=True):
            if not requests:
                is_same = False
                name = uuid.UUID(bytes=conversation.exchange)
                print(f"ksz-router: {name}: no request of this exchange is here", file=sys.stderr)
            for request in requests:
                replayed = replay.again(request, conversation.others)
                is_same = is_same and replayed.state is State.SAME
                _print(replayed, as_json=arguments.json)
        _print_damaged(replay.damaged)
    return OK if is_same else NOT_IN_ORDER


def _take_sealed(conversation: Conversation, place: Place) -> None:
    """Look in the archive for what is in no write-ahead file any more."""
    if not _has_archive(place):
        return
    from ksz_router.privacylog.archive.find import entries_of  # noqa: PLC0415

    assert place.archive is not None
    keys = KeyRing(place.keys)
    for leaf in entries_of(conversation.exchange, archive=place.archive, log=place.log, keys=keys):
        conversation.take(leaf.record)


def _has_archive(place: Place) -> bool:
    """Say whether something was sealed, and can be read."""
    if place.archive is None or not (place.archive / "manifest").is_dir():
        return False
    if importlib.util.find_spec("pyarrow") is None:
        raise PrivacyLogError("the sealed log is read with ksz-router[audit]; install that extra")
    return True


def _stretch(arguments: argparse.Namespace, place: Place, store: Path) -> int:
    first = parse_day("--from", arguments.from_day)
    last = first if arguments.to_day is None else parse_day("--to", arguments.to_day)
    if last < first:
        raise UsageError("--to: comes before --from")
    reading = Reading(place.log, place.keys, place.node, "log replay", arguments)
    reading.record((), begin=first, end=last)
    begin_us = brussels_midnight_ns(first) // 1000
    end_us = brussels_midnight_ns(next_day(last)) // 1000
    sealed, sealed_up_to = _sealed(place, begin_us, end_us)
    with closing(Replay(place.log, place.keys, store)) as replay:
        found = replay.stretch(begin_us, end_us, sealed=sealed, sealed_up_to=sealed_up_to)
    for replayed in found.alarms:
        _print(replayed, as_json=arguments.json)
    _print_counts(found, as_json=arguments.json)
    _print_damaged(found.damaged)
    is_same = not found.damaged and set(found.states) <= {State.SAME}
    return OK if is_same else NOT_IN_ORDER


def _sealed(
    place: Place, begin_us: int, end_us: int
) -> tuple[Iterable[Sequence[bytes]], dict[str, int]]:
    """Return the sealed requests of a time, and up to which record each slot is sealed."""
    if not _has_archive(place):
        return (), {}
    from ksz_router.privacylog.archive.chain import newest  # noqa: PLC0415
    from ksz_router.privacylog.archive.requests import sealed_requests  # noqa: PLC0415

    assert place.archive is not None
    manifest = newest(place.archive)
    if manifest is None:
        return (), {}
    up_to = {slot: cursor.next_record for slot, cursor in manifest.slots.items()}
    return sealed_requests(place.archive, manifest, begin_us, end_us), up_to


def _exchange(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise UsageError("--exchange: an exchange id such as an answer bears, a UUID") from None


def _print(replayed: Replayed, *, as_json: bool) -> None:
    entry = replayed.entry
    name = str(uuid.UUID(bytes=entry.exchange)) if entry.exchange is not None else "-"
    if as_json:
        print(
            json.dumps(
                {
                    "exchange": name,
                    "at_us": entry.at_us,
                    "verdict": code_name(entry.code),
                    "generation": entry.generation,
                    "replay": replayed.state.value,
                    "differences": [difference._asdict() for difference in replayed.differences],
                    "taken": list(replayed.taken),
                    "why": replayed.why,
                }
            )
        )
        return
    print(f"{name}  {code_name(entry.code)}  {entry.generation[:8]}  {replayed.state.value}")
    for line in _details(replayed):
        print(f"    {line}")


def _details(replayed: Replayed) -> Iterator[str]:
    for field, recorded, decided in replayed.differences:
        yield f"ALARM {field}: recorded {recorded or '-'}, decided again {decided or '-'}"
    if replayed.state is State.SAME and replayed.taken:
        yield f"taken from the record: {'; '.join(replayed.taken)}"
    if replayed.why:
        yield replayed.why


def _print_counts(found: Stretch, *, as_json: bool) -> None:
    counts = {state.value: found.states[state] for state in State}
    if as_json:
        print(json.dumps({"counts": counts, "not_decided": dict(found.reasons)}))
        return
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    for reason, count in found.reasons.most_common():
        print(f"    {count} not decided: {reason}")


def _print_damaged(damaged: Sequence[str]) -> None:
    for what in damaged:
        print(f"ksz-router: incomplete: {what}", file=sys.stderr)
