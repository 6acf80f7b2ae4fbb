"""Mailboxes received: durable before acknowledged, complete or refused, each number once."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import lmdb
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ksz_router.daemon.mailbox_lines import request_of
from ksz_router.directory import mailboxes as store
from ksz_router.directory.mailbox import (
    Fault,
    LineIds,
    Mailbox,
    MailboxRefused,
    Part,
    Sender,
    State,
)
from ksz_router.directory.mailbox_form import COLUMNS, Head, RowMalformed, head_of, row_of
from ksz_router.directory.mailboxes import Mailboxes
from ksz_router.messages import Request
from ksz_router.model import OPEN, Role
from ksz_router.sdk import directory as d
from ksz_router.sdk.directory_files import mailbox_of, parts_of
from tests.mailbox_ground import CENTRE, CENTRE_PROGRAM, PEOPLE, inscribe, of_centre, parts, send

A, B, C = PEOPLE[:3]
ME = Sender(CENTRE, Role(17, 1))
LONG = of_centre(4, *map(inscribe, PEOPLE * 20))
DAY_MS = 86_400_000


def refused(mailboxes: Mailboxes, content: bytes, number: int, sender: Sender = ME) -> Fault:
    with pytest.raises(MailboxRefused) as found:
        for part in parts(content, number):
            mailboxes.receive(sender, part, 1)
    return found.value.fault


def test_parts_may_come_in_any_order_and_again_and_over_restarts(tmp_path: Path) -> None:
    """Each is acknowledged once it is durable; with the last the whole waits to be applied."""
    sent = parts(LONG, 4)
    assert len(sent) == 3
    for part, missing in ((sent[2], [1, 2]), (sent[0], [2]), (sent[2], [2])):
        mailboxes = Mailboxes(tmp_path / "m")
        mailbox, _ = mailboxes.receive(ME, part, 5)
        assert (mailbox.state, mailbox.missing) == (State.RECEIVING, missing)
        mailboxes.close()
    mailboxes = Mailboxes(tmp_path / "m")
    assert mailboxes.next_waiting() is None

    whole, repeated = mailboxes.receive(ME, sent[1], 6)

    assert (whole.state, whole.lines, repeated) == (State.WAITING, 240, False)
    assert (whole.received_ms, whole.complete_ms) == (5, 6)
    assert mailboxes.next_waiting() == whole
    assert mailboxes.lines_file(whole).read_bytes() == LONG
    assert mailboxes.receive(ME, sent[1], 7) == (whole, True)
    assert mailboxes.lines_file(whole).stat().st_mode & 0o077 == 0
    assert mailboxes.folder.stat().st_mode & 0o077 == 0
    mailboxes.close()


def test_a_number_is_used_once(tmp_path: Path) -> None:
    """Another content under a number that is used is refused, whatever became of the first."""
    mailboxes = Mailboxes(tmp_path)
    send(mailboxes, of_centre(1, inscribe(A)))
    assert refused(mailboxes, of_centre(1, inscribe(B)), 1) is Fault.FILE_NUMBER_USED
    done = replace(mailboxes.next_waiting() or send(mailboxes, b""), state=State.DONE, done_ms=9)
    mailboxes.note(done)
    mailboxes.forget_lines(done)
    assert refused(mailboxes, of_centre(1, inscribe(B)), 1) is Fault.FILE_NUMBER_USED
    assert mailboxes.forget_before(10 * DAY_MS) == 0, "it had no answers"
    assert refused(mailboxes, of_centre(1, inscribe(B)), 1) is Fault.FILE_NUMBER_USED
    other = Sender(CENTRE, Role(18, 0))
    assert refused(mailboxes, of_centre(1, inscribe(A)), 1, other) is Fault.FILE_NUMBER_USED
    assert mailboxes.waiting() == 0
    mailboxes.close()


def test_numbers_that_were_left_out_are_told(tmp_path: Path) -> None:
    """Of this sender, from the first that was ever received on; a late one closes its gap."""
    mailboxes = Mailboxes(tmp_path)
    assert mailboxes.gaps(CENTRE) == []
    for number in (3, 4, 6, 10):
        send(mailboxes, of_centre(number, inscribe(A)))
    assert mailboxes.gaps(CENTRE) == [(5, 5), (7, 9)]
    assert mailboxes.gaps("0999012995") == []
    send(mailboxes, of_centre(8, inscribe(A)))
    send(mailboxes, of_centre(5, inscribe(A)))
    assert mailboxes.gaps(CENTRE) == [(7, 7), (9, 9)]
    mailboxes.close()


HEAD = of_centre(1).partition(b"\n")[0]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (of_centre(2, inscribe(A)), Fault.FILE_SENDER_DIFFERS),
        (of_centre(1, inscribe(A)).replace(b"17,1,", b"18,0,"), Fault.FILE_SENDER_DIFFERS),
        (of_centre(1, inscribe(A)).replace(b"mailbox,1", b"mailbox,2"), Fault.FILE_HEAD_MALFORMED),
        (of_centre(1, inscribe(A)).replace(b"insz,", b"ssin,"), Fault.FILE_HEAD_MALFORMED),
        (of_centre(1, inscribe(A)).replace(b"end,1", b"end,2"), Fault.FILE_COUNT_DIFFERS),
        (of_centre(1, inscribe(A)).replace(b"end,1", b"end,0"), Fault.FILE_COUNT_DIFFERS),
        (of_centre(1, inscribe(A)).replace(b"end,1\n", b""), Fault.FILE_END_MISSING),
        (of_centre(1, inscribe(A))[:-30], Fault.FILE_END_MISSING),
        (HEAD, Fault.FILE_HEAD_MALFORMED),
        (HEAD + b"\nend,0\n", Fault.FILE_HEAD_MALFORMED),
        (b"\xff" * 9000, Fault.FILE_HEAD_MALFORMED),
    ],
)
def test_what_is_not_complete_is_refused_whole_and_may_be_sent_mended(
    tmp_path: Path, content: bytes, fault: Fault
) -> None:
    """Nothing of it waits, its lines are gone, and its number takes the mended one."""
    mailboxes = Mailboxes(tmp_path)
    mailbox = [mailboxes.receive(ME, part, 1)[0] for part in parts(content, 1)][-1]

    assert (mailbox.state, Fault(mailbox.fault)) == (State.REFUSED, fault)
    assert mailboxes.receive(ME, parts(content, 1)[-1], 2) == (mailbox, True)
    assert mailboxes.next_waiting() is None
    assert not mailboxes.lines_file(mailbox).exists()
    assert send(mailboxes, of_centre(1, inscribe(A))).state is State.WAITING
    mailboxes.close()


def test_what_was_announced_is_held_to(tmp_path: Path) -> None:
    """Digest, sizes, and what a part held before."""
    mailboxes = Mailboxes(tmp_path)
    first, second, third = parts(LONG, 4)
    mailboxes.receive(ME, first, 1)

    for wrong, fault in (
        (replace(second, sha256=bytes(32)), Fault.FILE_NUMBER_USED),
        (replace(second, file_bytes=len(LONG) + 1), Fault.FILE_NUMBER_USED),
        (replace(second, part=4), Fault.FILE_PART_MALFORMED),
        (replace(second, part=0), Fault.FILE_PART_MALFORMED),
        (replace(second, data=second.data[:-1]), Fault.FILE_PART_MALFORMED),
        (replace(first, data=second.data), Fault.FILE_PART_DIFFERS),
        (replace(first, number=5, sha256=b"short"), Fault.FILE_PART_MALFORMED),
        (replace(first, number=0), Fault.FILE_PART_MALFORMED),
        (replace(first, number=5, part_bytes=16), Fault.FILE_PART_MALFORMED),
        (replace(first, number=5, file_bytes=1 << 30), Fault.FILE_TOO_LARGE),
    ):
        with pytest.raises(MailboxRefused) as found:
            mailboxes.receive(ME, wrong, 1)
        assert found.value.fault is fault

    mailboxes.receive(ME, replace(second, data=second.data[::-1]), 1)
    mailbox, _ = mailboxes.receive(ME, third, 1)
    assert Fault(mailbox.fault) is Fault.FILE_DIGEST_DIFFERS
    mailboxes.close()


def test_only_so_many_are_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one sender, and of all; what is complete no longer counts for its sender."""
    monkeypatch.setattr(store, "mailboxes_receiving_max", 2)
    monkeypatch.setattr(store, "mailboxes_unfinished_max", 3)
    mailboxes = Mailboxes(tmp_path)
    contents = {n: of_centre(n, *map(inscribe, PEOPLE * 20)) for n in range(1, 6)}
    for number in (1, 2):
        mailboxes.receive(ME, parts(contents[number], number)[0], 1)
    assert refused(mailboxes, contents[3], 3) is Fault.FILES_TOO_MANY
    send(mailboxes, contents[1])
    mailboxes.receive(ME, parts(contents[3], 3)[0], 1)
    send(mailboxes, contents[2])
    assert refused(mailboxes, contents[4], 4) is Fault.FILES_TOO_MANY
    assert mailboxes.waiting() == 2
    mailboxes.close()


def test_what_is_old_is_forgotten_and_the_number_is_not(tmp_path: Path) -> None:
    """Answers after their time, and what was never completed, whose number is free again."""
    mailboxes = Mailboxes(tmp_path)
    waiting = send(mailboxes, of_centre(1, inscribe(A)))
    mailboxes.answers_file(waiting).write_text("x")
    mailboxes.note(replace(waiting, state=State.DONE, done_ms=5))
    mailboxes.receive(ME, parts(LONG, 4)[0], 5)

    assert mailboxes.forget_before(5) == 0
    assert mailboxes.forget_before(6) == 2

    assert mailboxes.find(CENTRE, 4) is None
    assert mailboxes.find(CENTRE, 1) is not None
    assert {path.name for path in tmp_path.iterdir()} == {"data.mdb", "lock.mdb"}, "no lines"
    mailboxes.close()


def test_lines_that_a_kill_left_to_nobody_are_forgotten_as_well(tmp_path: Path) -> None:
    """They name persons. Between the file and the note of its first part nothing else knows it."""
    mailboxes = Mailboxes(tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Mailboxes, "note", lambda *_: _killed())
        mailboxes.receive(ME, parts(LONG, 4)[0], 5)
    known, _ = mailboxes.receive(ME, parts(LONG.replace(b",4\n", b",5\n", 1), 5)[0], 10**15)
    left = tmp_path / f"{CENTRE}-4.lines"
    for file in (left, mailboxes.lines_file(known)):
        os.utime(file, ns=(9_000_000, 9_000_000))

    mailboxes.forget_before(9)
    assert left.exists(), "a part of it may be under way"
    mailboxes.forget_before(10)
    assert not left.exists()
    assert mailboxes.lines_file(known).exists(), "the rest of it may come"
    mailboxes.close()


def _killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "use",
    [
        lambda mailboxes: mailboxes.find(CENTRE, 4),
        lambda mailboxes: mailboxes.next_waiting(),
        lambda mailboxes: mailboxes.waiting(),
        lambda mailboxes: mailboxes.gaps(CENTRE),
        lambda mailboxes: mailboxes.forget_before(1),
        lambda mailboxes: mailboxes.receive(ME, parts(LONG, 4)[0], 5),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    tmp_path: Path, use: Callable[[Mailboxes], object]
) -> None:
    """Whatever is asked of it: who serves catches that, and nothing of LMDB's."""
    mailboxes = Mailboxes(tmp_path / "m")
    mailboxes.close()
    with pytest.raises(store.MailboxesUnusable) as caught:
        use(mailboxes)
    assert isinstance(caught.value.__cause__, lmdb.Error)


def test_ids_of_lines_hold_the_moment_and_nothing_of_chance() -> None:
    """UUIDv7 of the moment it was taken up; another content, number or line gives another."""
    mailbox = Mailbox(
        kbo=CENTRE, number=4, sector=17, type=1, file_bytes=9, sha256=bytes(32), part_bytes=9,
        received=b"\1", received_ms=1, begun_ms=1_795_000_000_123,
    )  # fmt: skip
    ids = {
        LineIds(each)(line)
        for each in (mailbox, replace(mailbox, number=5), replace(mailbox, sha256=b"1" * 32))
        for line in range(1, 200)
    }
    assert len(ids) == 3 * 199
    for each in ids:
        assert int.from_bytes(each[:6], "big") == mailbox.begun_ms
        assert (len(each), each[6] >> 4, each[8] >> 6) == (16, 7, 2)
    assert LineIds(mailbox)(17) == LineIds(replace(mailbox, runs=9, lines_done=16))(17)


ENVELOPE = Request(
    id=0, service="", version=0, ticket="4.9", application=CENTRE_PROGRAM, sector=17, type=1,
    capacity=2,
)  # fmt: skip
MARCH = 20260301, 20260331
EVERYWHERE = d.Removal(what=d.What.PERIOD, every_capacity=True)


@pytest.mark.parametrize(
    ("row", "online"),
    [
        (f"{A},inscribe,2,,2026-03-01,,,,", d.inscribe(ENVELOPE, A, begin=20260301)),
        (
            f"{A},inscribe,2,4,2026-03-01,2026-03-31,,,1",
            d.inscribe(ENVELOPE, A, begin=MARCH[0], end=MARCH[1], phase=4, sector_wide=True),
        ),
        (
            f"{A},adjust,2,3,2026-03-01,2026-03-31,2026-01-01,,",
            d.adjust(ENVELOPE, A, phase=3, begin=MARCH[0], end=MARCH[1], line_begin=20260101),
        ),
        (
            f"{A},remove-line,2,,2026-03-01,,,,",
            d.remove(ENVELOPE, A, d.Removal(what=d.What.LINE), begin=20260301),
        ),
        (
            f"{A},remove-period-everywhere,2,,2026-03-01,2026-03-31,,,",
            d.remove(ENVELOPE, A, EVERYWHERE, begin=MARCH[0], end=MARCH[1]),
        ),
        (
            f"{A},remove-capacity,2,3,,,,,",
            d.remove(ENVELOPE, A, d.Removal(what=d.What.CAPACITY, phase=3)),
        ),
        (f"{A},remove-all,2,,,,,,", d.remove(ENVELOPE, A, d.Removal(what=d.What.ALL))),
        (f"{A},new,2,,,,,,", d.register(ENVELOPE, A, d.Event.NEW)),
        (f"{A},replace,2,,,,,{B},", d.register(ENVELOPE, A, d.Event.REPLACE, by=B)),
        (f"{A},decease,2,,2026-03-01,,,,", d.register(ENVELOPE, A, d.Event.DECEASE, day=20260301)),
    ],
)
def test_a_line_is_the_request_that_is_made_online(row: str, online: Request) -> None:
    """Field by field, payload included: so the control and the directory cannot tell them apart."""
    mailbox = Mailbox(
        kbo=CENTRE, number=4, sector=17, type=1, file_bytes=9, sha256=bytes(32), part_bytes=9,
        received=b"\1", received_ms=1, application=CENTRE_PROGRAM,
    )  # fmt: skip
    made = request_of(mailbox, 9, row.encode())
    if online.service == d.REGISTER and online.begin is not None:
        online = replace(online, end=None)  # the day of a death is a first day
        made = replace(made, end=None)
    assert made == online


@pytest.mark.parametrize(
    "row",
    [
        "",
        "a,b",
        f"{A},inscribe,2,1,2026-03-01,,,",
        f"{A},inscribe,2,1,2026-03-01,,,,,",
        f"{A},erase,2,1,2026-03-01,,,,",
        f"{A},inscribe,,1,2026-03-01,,,,",
        f"{A},inscribe,1000,1,2026-03-01,,,,",
        f"{A},inscribe,2,1,20260301,,,,",
        f"{A},inscribe,2,1,2026-02-30,,,,",
        f"{A},inscribe,2,1,2026-03-01,,2026-01-01,,",
        f"{A},inscribe,2,1,2026-03-01,,,{B},",
        f"{A},inscribe,2,1,2026-03-01,,,,yes",
        f"{A},adjust,2,,2026-03-01,,,,",
        f"{A},new,2,1,,,,,",
        f"{A},new,2,,,,,,1",
        f"{A},inscribe,\u0662,1,2026-03-01,,,,",
    ],
)
def test_what_is_no_change_is_refused_without_a_word_of_it(row: str) -> None:
    """A cell too many, too few, out of range, or that does not belong to the operation."""
    mailbox = Mailbox(
        kbo=CENTRE, number=4, sector=17, type=1, file_bytes=9, sha256=bytes(32), part_bytes=9,
        received=b"\1", received_ms=1, application=CENTRE_PROGRAM,
    )  # fmt: skip
    with pytest.raises(RowMalformed) as found:
        request_of(mailbox, 1, row.encode())
    assert A not in str(found.value)


@given(st.binary(max_size=80))
def test_no_bytes_make_the_form_raise_anything_else(data: bytes) -> None:
    """What a peer sends is a row or it is not."""
    for read, expected in ((row_of, RowMalformed), (head_of, MailboxRefused)):
        try:
            read(data)
        except (RowMalformed, MailboxRefused) as error:
            assert isinstance(error, expected)


def test_the_identification_is_read_as_it_is_written() -> None:
    """And the columns are those of the document."""
    head = Head(CENTRE, 17, 1, CENTRE_PROGRAM, 999_999_999_999)
    assert head_of(head.text.encode()) == head
    assert row_of(inscribe(A).encode()).end == OPEN
    assert mailbox_of(head, ["x"]).decode().splitlines()[1:] == [",".join(COLUMNS), "x", "end,1"]


def test_the_sdk_cuts_a_mailbox_into_parts_with_tickets_of_their_own(tmp_path: Path) -> None:
    """Who sends it again after losing everything sends the same tickets: retries, no doubles."""
    asked = list(parts_of(ENVELOPE, 4, LONG, 4096))
    again = list(parts_of(ENVELOPE, 4, LONG, 4096))
    assert asked == again
    assert len({request.ticket for request in asked}) == 3
    assert all(len(request.ticket) <= 36 for request in asked)
    mailboxes = Mailboxes(tmp_path)
    random.Random(1).shuffle(asked)
    taken = [
        mailboxes.receive(ME, msgspec.msgpack.decode(request.payload, type=Part), 1)[0]
        for request in asked
    ]
    assert taken[-1].state is State.WAITING
    mailboxes.close()
