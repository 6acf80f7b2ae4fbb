"""Mailboxes applied: judged and recorded as what is asked online, and the same after every kill."""

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksz_router.codes import Code
from ksz_router.daemon import mailbox_lane
from ksz_router.directory import mailbox as directory_mailbox
from ksz_router.directory.change import Change, Operation
from ksz_router.directory.mailbox import LineIds, State
from ksz_router.directory.mailbox_form import Work
from ksz_router.directory.mailboxes import Mailboxes
from ksz_router.directory.writer import Writer
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.keys import Tokens, load
from ksz_router.sdk.directory import Event
from tests.mailbox_ground import (
    CENTRE,
    PEOPLE,
    REGISTER,
    STRANGER,
    Ground,
    Rules,
    inscribe,
    of_centre,
    of_register,
    rules,
    send,
)
from tests.worlds import EXAMPLE

A, B, C = PEOPLE[:3]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rules:
    return rules(tmp_path_factory.mktemp("rules"))


@pytest.fixture
def ground(tmp_path: Path, made: Rules) -> Ground:
    return Ground(tmp_path / "ground", made)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes and three lines at a time, in two transactions, so that a small one takes some."""
    monkeypatch.setattr(directory_mailbox, "mailbox_part_bytes_min", 256)
    monkeypatch.setattr(mailbox_lane, "mailbox_step_lines_min", 3)
    monkeypatch.setattr(mailbox_lane, "mailbox_step_lines_max", 3)
    monkeypatch.setattr(mailbox_lane, "mailbox_transaction_lines_beside", 2)


MIXED = (
    inscribe(A),
    inscribe(A),  # overlaps
    f"{A},adjust,2,3,2026-03-01,2026-12-31,,,",
    f"{A},remove-period,2,,2026-05-01,2026-05-31,,,",
    inscribe(B, capacity=77),  # not granted
    inscribe(STRANGER),  # unknown
    "no,change",
    f"{B},remove-line,2,,2026-03-01,,,,",  # no such line
    inscribe(B, capacity=3),
    inscribe(C, "2026-01-01", "2026-02-28"),
    f"{C},remove-capacity,2,,,,,,",
)


def test_each_line_has_the_verdict_it_would_have_online(ground: Ground) -> None:
    """Applied with a version, refused by the control, by the directory, or no change at all."""
    (mailbox,) = ground.apply(of_centre(1, *MIXED))

    assert ground.answers(CENTRE, 1).splitlines() == [
        "line,outcome,code,reason,version",
        "1,applied,10001,,2",
        "2,refused,10002,OVERLAPS,",
        "3,applied,10001,,3",
        "4,applied,10001,,4",
        "5,refused,4002,CAPACITY_NOT_GRANTED,",
        "6,refused,6001,PERSON_UNKNOWN,",
        "7,refused,2003,ROW_MALFORMED,",
        "8,refused,10002,LINE_UNKNOWN,",
        "9,applied,10001,,5",
        "10,applied,10001,,6",
        "11,applied,10001,,7",
        "end,11",
    ]
    assert (mailbox.state, mailbox.applied, mailbox.refused) == (State.DONE, 6, 5)
    first, second, third = ground.persons([A, B, C])
    assert first is not None and second is not None and third is not None
    periods = [(line.begin, line.end, line.phase) for line in first.lines]
    assert periods == [(20260301, 20260430, 3), (20260601, 20261231, 3)]
    assert [line.capacity for line in second.lines] == [3]
    assert third.lines == ()


def test_every_line_is_recorded_with_the_person_it_concerns(ground: Ground) -> None:
    """Passed or refused, each has a REQUEST and then an OUTCOME, found by the person's token."""
    ground.apply(of_centre(1, *MIXED))

    entries = ground.entries()
    requests = [entry for entry in entries if entry.kind is Kind.REQUEST]
    outcomes = {entry.exchange: entry for entry in entries if entry.kind is Kind.OUTCOME}
    tokens = Tokens(load(ground.rules.keys, "2026Q4"))
    concerned = Counter(tokens.person_number(entry.person or b"") for entry in requests)
    assert concerned == {A: 4, B: 3, STRANGER: 1, C: 2}
    assert {entry.requester for entry in requests} == {CENTRE}
    assert {entry.application for entry in requests} == {"00901000101"}
    assert [entry.code for entry in requests if entry.code] == [4002, 6001]
    assert {entry.exchange for entry in requests} == set(outcomes)
    (counted,) = [entry for entry in entries if entry.kind is Kind.SUMMARY]
    assert counted.counts == ((int(Code.FIELD_MALFORMED), 1),)


def test_who_may_not_do_it_online_may_not_do_it_by_a_file(ground: Ground) -> None:
    """The register's program inscribes nobody, the centre says nothing of numbers."""
    ground.apply(
        of_register(1, inscribe(A)),
        of_centre(1, f"{A},decease,0,,2026-10-01,,,,"),
        of_register(2, f"{A},decease,0,,2026-10-01,,,,", f"{B},replace,0,,,,,{C},"),
    )

    right = "SERVICE_NOT_IN_ACCESS_RIGHT"
    assert f"1,refused,3004,{right}," in ground.answers(REGISTER, 1)
    assert f"1,refused,3004,{right}," in ground.answers(CENTRE, 1)
    assert ground.answers(REGISTER, 2).count("applied") == 2
    first, second = ground.persons([A, B])
    assert first is not None and second is not None
    assert (first.deceased, second.current) == (20261001, C)
    further = [entry for entry in ground.entries() if entry.kind is Kind.FURTHER]
    assert len(further) == 1, "the number that takes the place is found in the log too"


def test_a_line_is_judged_on_what_the_lines_before_it_made(ground: Ground) -> None:
    """A number that a mailbox brings to life is known to the control of its next line."""
    ground.apply(
        of_register(1, f"{STRANGER},new,0,,,,,,", f"{STRANGER},replace,0,,,,,{A},"),
        of_centre(1, inscribe(STRANGER)),
    )

    assert ground.answers(REGISTER, 1).count("applied") == 2
    (holder,) = ground.persons([A])
    assert holder is not None and len(holder.lines) == 1, "under the number in use"


def test_where_the_control_asks_who_knows_the_person_earlier_lines_count(tmp_path: Path) -> None:
    """Adjusting may be for those only who know the person: as they do by the line before."""
    control = """service = "directory.adjust"
version = 1
own = "%s"
"""
    edit = ("services/directory.toml", control % "none", control % "block")
    ground = Ground(tmp_path / "ground", rules(tmp_path, edit))

    ground.apply(
        of_centre(
            1,
            f"{A},adjust,2,3,2026-03-01,,,,",
            inscribe(A),
            inscribe(B),
            f"{A},adjust,2,3,2026-03-01,,,,",
            f"{A},adjust,2,4,2026-03-01,2026-12-31,,,",
        )
    )

    verdicts = [row.split(",")[1:4] for row in ground.answers(CENTRE, 1).splitlines()[1:-1]]
    assert verdicts[0] == ["refused", "5001", "PERSON_NOT_INTEGRATED"]
    assert [verdict[0] for verdict in verdicts[1:]] == ["applied"] * 4


def test_what_the_rulebook_sends_elsewhere_is_not_applied_here(tmp_path: Path) -> None:
    """Where the data availability names another institution, the directory is not its own."""
    bank = """service = "directory.inscribe"
version = 1
kbo = "0999020618"
role = "25/0"
"""
    other = bank.replace("0999020618", "0999010126").replace("25/0", "18/0")
    grant = """id = "ksz-directory-inscribe"
direction = "receive"
service = "directory.inscribe"
version = 1
role = "%s"
"""
    living_wage = (EXAMPLE / "services" / "living-wage.toml").read_text(encoding="utf-8")
    integrations = living_wage[living_wage.index("[[integration]]") :]  # could never be applied so
    made = rules(
        tmp_path,
        ("services/living-wage.toml", integrations, ""),
        ("availability/directory.toml", bank, other),
        ("deliberations/wet-1990-art-6.toml", grant % "25/0", grant % "18/0"),
    )
    ground = Ground(tmp_path / "ground", made)

    ground.apply(of_centre(1, inscribe(A)))

    assert "1,refused,9001,SOURCE_UNREACHABLE," in ground.answers(CENTRE, 1)
    (person,) = ground.persons([A])
    assert person is not None
    assert person.lines == ()
    assert [(e.kind, e.code) for e in ground.entries()] == [(Kind.REQUEST, 0), (Kind.OUTCOME, 9001)]


def test_lines_end_by_one_or_two_characters_and_may_be_too_long(ground: Ground) -> None:
    """What is no line is answered as such, and the next one is read where it begins."""
    rows = (inscribe(A), inscribe(B) + "x" * 1000, inscribe(C))
    content = of_centre(1, *rows).replace(b"\n", b"\r\n")

    ground.apply(content)

    outcomes = [row.split(",")[1] for row in ground.answers(CENTRE, 1).splitlines()[1:-1]]
    assert outcomes == ["applied", "refused", "applied"]


def test_an_empty_mailbox_is_done(ground: Ground) -> None:
    """Zero changes are confirmed and answered."""
    (mailbox,) = ground.apply(of_centre(1))
    assert mailbox.state is State.DONE
    assert ground.answers(CENTRE, 1) == "line,outcome,code,reason,version\nend,0\n"


def test_the_lines_are_removed_once_they_have_their_verdicts(ground: Ground) -> None:
    """They name persons; the answers do not, and stay."""
    ground.apply(of_centre(1, *MIXED))

    names = {path.name for path in (ground.folder / "mailboxes").iterdir()}
    assert names == {"data.mdb", "lock.mdb", f"{CENTRE}-1.answers.csv"}
    answers = ground.answers(CENTRE, 1)
    assert not any(insz in answers for insz in (*PEOPLE, STRANGER))


LINE_WORKS = [work for work in Work if work.value not in set(Event)]

rows_of_any_kind = st.builds(
    lambda insz, work, capacity, phase, days: f"{insz},{work},{capacity},{phase},{days},,,",
    st.sampled_from([*PEOPLE[:3], STRANGER]),
    st.sampled_from(["inscribe", "inscribe", *LINE_WORKS]),
    st.sampled_from([2, 3, 902, 77]),
    st.sampled_from(["", "1", "2"]),
    st.sampled_from(["2026-03-01,", "2026-03-01,2026-03-31", "2026-03-15,2026-04-15", ","]),
)


@given(rows=st.lists(rows_of_any_kind, max_size=12))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_mailbox_makes_what_its_lines_would_make_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, made: Rules, rows: list[str]
) -> None:
    """However it is cut into steps: all at once, or each line a mailbox of its own."""
    whole = Ground(tmp_path_factory.mktemp("whole"), made)
    single = Ground(tmp_path_factory.mktemp("single"), made)

    whole.apply(of_centre(1, *rows))
    single.apply(*(of_centre(n, row) for n, row in enumerate(rows, 1)))

    assert whole.persons() == single.persons()
    verdicts = [row.split(",", 1)[1] for row in whole.answers(CENTRE, 1).splitlines()[1:-1]]
    alone = [single.answers(CENTRE, n).splitlines()[1] for n in range(1, len(rows) + 1)]
    assert verdicts == [row.split(",", 1)[1] for row in alone]


def run_until(moment: int, ground: Ground, content: bytes) -> bool:
    """Take in and apply in a process that is killed at a moment; say whether it ended before.

    Moments are before and after each flush of a file, each transaction of the directory and each
    note of how far the mailbox is.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    try:
        left = [moment]

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*given: object, **named: object) -> object:
                pass_moment()
                result = call(*given, **named)
                pass_moment()
                return result

            return wrapped

        def pass_moment() -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        for owner, name in (
            (os, "fsync"), (os, "fdatasync"), (Writer, "apply"), (Mailboxes, "note"),
        ):  # fmt: skip
            setattr(owner, name, counted(getattr(owner, name)))
        with ground.lane() as (lane, mailboxes):
            send(mailboxes, content, 256)
            while lane.step() is not None:
                pass
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.usefixtures("small_steps")
def test_a_kill_at_any_moment_changes_nothing_in_the_end(tmp_path: Path, made: Rules) -> None:
    """Same directory, same answers; at no moment anything applied or told before its record."""
    content = of_centre(7, *MIXED)
    undisturbed = Ground(tmp_path / "undisturbed", made)
    undisturbed.apply(content, part_bytes=256)
    wanted = undisturbed.answers(CENTRE, 7), undisturbed.persons()

    moment, ended = 0, False
    while not ended:
        moment += 1
        ground = Ground(tmp_path / f"killed-{moment}", made)
        ended = run_until(moment, ground, content)
        check_laws(ground)
        ground.apply(content, part_bytes=256)
        assert (ground.answers(CENTRE, 7), ground.persons()) == wanted, f"moment {moment}"
        check_laws(ground)
        assert not list((ground.folder / "mailboxes").glob("*.lines")), "they name persons"
    assert moment > 60, "there is something to be killed in"


def check_laws(ground: Ground) -> None:
    """Law 2, as the disk shows it at this moment."""
    mailboxes, writer = Mailboxes(ground.folder / "mailboxes"), Writer.open(ground.directory)
    try:
        mailbox = mailboxes.find(CENTRE, 7)
        if mailbox is None or not mailbox.begun_ms:
            assert writer.version == 1
            return
        entries, id_of = ground.entries(), LineIds(mailbox)
        requested = {e.first or e.exchange for e in entries if e.kind is Kind.REQUEST}
        outcomes = {e.exchange for e in entries if e.kind is Kind.OUTCOME}
        settled = {
            e.first or e.exchange
            for e in entries
            if e.kind is Kind.REQUEST and e.exchange in outcomes
        }
        for line in range(1, mailbox.lines + 1):
            if writer.note_of(id_of(line)) is not None:
                assert id_of(line) in requested, "applied, and not recorded"
        told = mailbox.lines_done - (mailbox.lines_done >= 7)  # the seventh is only counted
        assert len(settled) >= told, "answered, and no outcome recorded"
    finally:
        writer.close()
        mailboxes.close()


@pytest.mark.usefixtures("small_steps")
def test_after_a_kill_what_was_under_way_is_a_retry_in_the_log(tmp_path: Path, made: Rules) -> None:
    """Its exchange id is new, and it names the first, under which the directory knows it."""
    content, ground = of_centre(7, *MIXED), Ground(tmp_path / "ground", made)
    real_note = Mailboxes.note

    def note_no_answers(self: Mailboxes, mailbox: object) -> object:
        if getattr(mailbox, "lines_done", 0):
            raise KeyboardInterrupt
        return real_note(self, mailbox)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Mailboxes, "note", note_no_answers)
        ground.apply(content, part_bytes=256)

    ground.apply(content, part_bytes=256)

    requests = [e for e in ground.entries() if e.kind is Kind.REQUEST and not e.code]
    retries = [e for e in requests if e.first is not None]
    firsts = {e.exchange for e in requests if e.first is None}
    assert [e.attempt for e in retries] == [2] * len(retries)
    assert {e.first for e in retries} & firsts
    assert len({e.exchange for e in requests}) == len(requests)


@pytest.mark.usefixtures("small_steps")
def test_what_a_kill_left_applied_is_told_though_it_would_be_refused_by_now(
    ground: Ground,
) -> None:
    """The number was cancelled before the mailbox went on: the control refuses its lines now."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mailbox_lane, "append_answers", stopped)
        ground.apply(of_centre(7, inscribe(A)), part_bytes=256)
    writer = Writer.open(ground.directory)
    writer.apply([Change(b"cancelled-online", A, Operation.CANCEL)], 2)
    writer.close()

    ground.apply(of_centre(7, inscribe(A)), of_centre(8, inscribe(A)), part_bytes=256)

    assert "\n1,applied,10001,,2\n" in ground.answers(CENTRE, 7)
    assert "\n1,refused," in ground.answers(CENTRE, 8)


@pytest.mark.usefixtures("small_steps")
def test_a_lane_goes_on_after_trouble_as_a_new_one_would(ground: Ground, tmp_path: Path) -> None:
    """The disk refuses between two transactions of a step; the same program tries again."""
    undisturbed = Ground(tmp_path / "undisturbed", ground.rules)
    undisturbed.apply(of_centre(7, *MIXED), part_bytes=256)
    with ground.lane() as (lane, mailboxes):
        send(mailboxes, of_centre(7, *MIXED), 256)
        assert lane.step() is not None
        with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="no room"):
            patch.setattr(Writer, "apply", refused_by_disk)
            lane.step()
        while lane.step() is not None:
            pass

    assert ground.answers(CENTRE, 7) == undisturbed.answers(CENTRE, 7)
    assert ground.persons() == undisturbed.persons()


@pytest.mark.usefixtures("small_steps")
def test_a_lane_that_is_closed_ends_the_step_that_is_under_way(ground: Ground) -> None:
    """Its lines are answered, and nothing of it is left open in the log."""
    with ground.lane() as (lane, mailboxes):
        send(mailboxes, of_centre(7, *MIXED), 256)
        step = lane.step()
        assert step is not None
        assert not step.lines
    answers = ground.answers(CENTRE, 7).splitlines()
    outcomes = [entry for entry in ground.entries() if entry.kind is Kind.OUTCOME]
    assert (len(answers), len(outcomes)) == (4, 3)


@pytest.mark.usefixtures("small_steps")
def test_a_lane_that_cannot_end_its_step_is_closed_all_the_same(ground: Ground) -> None:
    """The disk refuses: what is open is settled by the next run, as after a kill."""
    with pytest.MonkeyPatch.context() as patch, ground.lane() as (lane, mailboxes):
        send(mailboxes, of_centre(7, *MIXED), 256)
        assert lane.step() is not None
        patch.setattr(Writer, "apply", refused_by_disk)
    ground.apply()
    assert ground.answers(CENTRE, 7).count("applied") == 6


def stopped(*_: object) -> int:
    raise KeyboardInterrupt


def refused_by_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, "no room")
