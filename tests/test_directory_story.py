"""The directory against a plain model: any changes, repeats, failures, deaths, loads, restores."""

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ksz_router.directory import Directory, DirectoryError
from ksz_router.directory.backup import AS_IT_IS, Wanted, back_up, restore
from ksz_router.directory.change import Applied, Change, Reason, Refused
from ksz_router.directory.check import check
from ksz_router.directory.packing import Record, unpack, unpack_key
from ksz_router.directory.writer import Writer
from ksz_router.model import NumberStatus
from tests.directory_breaking import POINTS, break_at, die
from tests.directory_files import line, loaded, person
from tests.directory_model import NOW_US, NUMBERS, Model, Told, changes, seen_in

MEMORY = Path("/dev/shm")
"""What is told here ends processes and transactions, never the power: no disk is needed."""

Outcomes = dict[bytes, tuple[int, Reason | None]]


class Moment(NamedTuple):
    """What the directory held, and what it knew of exchange ids."""

    model: Model
    outcomes: Outcomes


Untold = list[tuple[int, Told]]
"""Notices in their order, with the version of the change."""


class Backup(NamedTuple):
    """A backup, and what it ought to hold."""

    place: Path
    version: int
    past: dict[int, Moment]
    untold: Untold


class Story(RuleBasedStateMachine):
    """One directory, and everything that may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.target = self.place / "directory"
        self.model = Model()
        self.outcomes: Outcomes = {}
        self.asked: list[Change] = []
        self.untold: Untold = []
        self.line: dict[int, Moment] = {}
        """What is the past of the directory, by version; what was left by a restore is not."""
        self.backups: list[Backup] = []
        self.version = loaded(self.place, *(person(n) for n in NUMBERS[:2])).version
        for n in NUMBERS[:2]:
            self.model.numbers[n], self.model.families[n] = Model.of_one(n)
        self.keep()
        self.writer = Writer.open(self.target)

    def keep(self) -> None:
        self.line[self.version] = Moment(self.model.copy(), dict(self.outcomes))

    # Changes.

    @rule(
        new=st.lists(changes(), max_size=6),
        repeats=st.lists(st.integers(0, 20), max_size=2),
        trouble=st.sampled_from((None, None, *POINTS)),
    )
    def change(self, new: list[Change], repeats: list[int], trouble: str | None) -> None:
        """Each is applied once, in order, whatever fails; the answer is what became of it."""
        batch = [*new, *(self.asked[i] for i in repeats if i < len(self.asked)), *new[:1]]
        was_applied = False
        if trouble is not None and batch:
            break_at(self.writer, trouble)
            before = self.outcomes.keys()
            is_new = any(change.exchange not in before for change in batch)
            try:
                self.writer.apply(batch, NOW_US)
            except DirectoryError:
                was_applied = trouble == "after commit"
            else:  # all were known: fewer than three puts
                assert trouble == "third put"
                assert not is_new
            die(self.writer)
            self.writer = Writer.open(self.target)
        verdicts = self.writer.apply(batch, NOW_US)
        for change, verdict in zip(batch, verdicts, strict=True):
            self.expect(change, verdict, is_repeated=was_applied)
        self.asked += new

    def expect(self, change: Change, verdict: Applied | Refused, *, is_repeated: bool) -> None:
        known = self.outcomes.get(change.exchange)
        assert verdict.repeated == (is_repeated or known is not None)
        if known is None:
            broken = self.model.broken(change)
            if isinstance(verdict, Refused):
                assert verdict.reason in broken
                known = (self.version, verdict.reason)
            else:
                assert not broken
                self.version += 1
                family = self.model.families.get(change.number)
                former = family.current if family is not None else ""
                self.model.apply(change)
                told = self.model.told(change, former)
                self.untold += [(self.version, each) for each in told]
                known = (self.version, None)
            self.outcomes[change.exchange] = known
            self.keep()
        if isinstance(verdict, Refused):
            assert verdict.reason is known[1]
        else:
            assert (verdict.version, None) == known

    @rule(
        some=st.sets(st.integers(0, 5)),
        trouble=st.sampled_from((None, "before commit", "after commit")),
    )
    def tell(self, some: set[int], trouble: str | None) -> None:
        """What was told waits no longer, and all else does, whatever fails meanwhile."""
        waiting = self.writer.notices(b"", 6)
        keys = [each.key for index, each in enumerate(waiting) if index in some]
        if trouble is not None:
            break_at(self.writer, trouble)
            with pytest.raises(DirectoryError):
                self.writer.remove_notices(keys)
            die(self.writer)
            self.writer = Writer.open(self.target)
        self.writer.remove_notices(keys)
        kept = [each for index, each in enumerate(self.untold) if index not in some]
        self.untold = kept

    # Ends and beginnings.

    @rule(dies=st.booleans(), is_checked=st.booleans())
    def start_anew(self, *, dies: bool, is_checked: bool) -> None:
        """After a clean stop or a death, with or without a check between."""
        self.stop(dies=dies)
        if is_checked:
            assert check(self.target) == []
        directory = Directory.open(self.target)
        directory.look_up([])
        assert directory.version == self.version
        directory.close()
        self.writer = Writer.open(self.target)

    def stop(self, *, dies: bool) -> None:
        if dies:
            die(self.writer)
        else:
            self.writer.close()

    @rule()
    def load(self) -> None:
        """A bulk load of what is there changes nothing but the version; ids stay known."""
        self.writer.close()
        self.version = loaded(self.place, *self.rows()).version
        self.line = {}
        self.keep()
        self.writer = Writer.open(self.target)

    def rows(self) -> list[str]:
        found = []
        for insz, held in self.model.numbers.items():
            is_replaced = held.status is NumberStatus.REPLACED
            current = self.model.families[insz].current if is_replaced else ""
            found.append(person(insz, held.status.name.lower(), current, dashed(held.deceased)))
        for insz, fields in self.model.lines():
            sector, kind, capacity, phase, begin, end, changed = fields
            found.append(
                line(
                    insz,
                    f"{sector},{kind},{capacity}",
                    begin=dashed(begin),
                    end=dashed(end),
                    phase=str(phase),
                    changed=dashed(changed),
                )
            )
        return found

    # Backups.

    @rule(dies=st.booleans())
    def back_up(self, *, dies: bool) -> None:
        """Of a directory that was stopped cleanly, and of one whose writer died."""
        self.stop(dies=dies)
        place = self.place / f"backup-{len(self.backups)}"
        assert back_up(self.target, place).version == self.version
        self.backups.append(Backup(place, self.version, dict(self.line), list(self.untold)))
        self.writer = Writer.open(self.target)

    @precondition(lambda self: self.backups)
    @rule(data=st.data(), dies=st.booleans())
    def restore(self, *, data: st.DataObject, dies: bool) -> None:
        """As it is, or brought forward to any version of its own future."""
        backup = data.draw(st.sampled_from(self.backups))
        versions = [version for version in self.line if version >= backup.version]
        until = data.draw(st.none() | st.sampled_from(versions or [backup.version]))
        self.stop(dies=dies)
        wanted = AS_IT_IS if until is None else Wanted(self.target, until)
        if until is not None and backup.version not in self.line:
            with pytest.raises(DirectoryError, match="take a"):
                restore(backup.place, self.target, wanted=wanted, now_us=NOW_US)
        else:
            restored = restore(backup.place, self.target, wanted=wanted, now_us=NOW_US)
            came_from = backup.version if until is None else until
            assert restored.came_from == came_from
            assert restored.version > self.version
            past = backup.past if until is None else self.line
            self.line = {version: past[version] for version in past if version <= came_from}
            moment = past[came_from]
            untold = backup.untold if until is None else self.untold
            self.untold = [each for each in untold if each[0] <= came_from]
            self.version = restored.version
            self.model, self.outcomes = moment.model.copy(), dict(moment.outcomes)
            self.keep()
        self.writer = Writer.open(self.target)

    # What always holds.

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        """Every record, the counts and the version."""
        records: dict[str, Record] = {}
        with self.writer._environment.begin(self.writer._databases.persons) as transaction:
            for key, value in transaction.cursor():
                records[unpack_key(key)] = unpack(value)
        assert seen_in(records) == self.model.seen()
        lines = sum(len(record.lines) for record in records.values())
        assert (self.writer.numbers_count, self.writer.lines_count) == (len(records), lines)
        assert self.writer.version == self.version
        for exchange, outcome in self.outcomes.items():
            assert self.writer.note_of(exchange) == outcome

    @invariant()
    def what_is_untold_waits(self) -> None:
        """In the order of the changes; it outlives deaths, loads and restores."""
        waiting = self.writer.notices(b"", 1_000)
        assert [
            (each.version, (told.operation, told.number, told.person, told.current, told.deceased))
            for each in waiting
            for told in [each.notice]
        ] == self.untold
        assert self.writer.notices(b"", 2) == waiting[:2]
        assert self.writer.backlog() == (len(waiting), NOW_US if waiting else 0)

    def teardown(self) -> None:
        """It is sound at the end of every story."""
        self.writer.close()
        assert check(self.target) == []
        for backup in self.backups:
            assert check(backup.place) == []
        shutil.rmtree(self.place)


def dashed(day: int) -> str:
    return f"{day // 10_000}-{day // 100 % 100:02}-{day % 100:02}" if 0 < day < 99991231 else ""


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=60, stateful_step_count=16)
