"""Any story of writers and sequencers, killed at any call of the disk: every record once."""

from contextlib import ExitStack

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ksz_router.privacylog.tree.sequence import Sequencer
from ksz_router.privacylog.writer import Writer
from tests.privacylog_world import NEXT_QUARTER_NS, NOW_NS, crash
from tests.sequence_ground import Faulty, Ground, Killed, in_memory

SLOTS = st.sampled_from(["w0", "w1", "v-0-0"])


class Story(RuleBasedStateMachine):
    """Writers come, write, leave and crash; a sequencer runs now and then."""

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.ground = Ground(self.stack.enter_context(in_memory()))
        self.writers: dict[str, Writer] = {}
        self.sequencer: Sequencer | None = None
        self.size = 0

    @rule(slot=SLOTS, groups=st.lists(st.integers(1, 30), min_size=1, max_size=4))
    def write(self, slot: str, groups: list[int]) -> None:
        if slot not in self.writers:
            self.writers[slot] = self.ground.open(slot=slot)
        for count in groups:
            self.writers[slot].commit(self.ground.records(count), self.ground.now_ns)

    @rule(slot=SLOTS, in_order=st.booleans())
    def leave(self, slot: str, in_order: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        writer = self.writers.pop(slot, None)
        if writer is not None:
            writer.close() if in_order else crash(writer)

    @precondition(lambda self: self.ground.now_ns == NOW_NS)
    @rule()
    def next_quarter(self) -> None:
        self.ground.now_ns = NEXT_QUARTER_NS

    @rule(slot=SLOTS)
    def rename(self, slot: str) -> None:
        """An operator puts a slot aside whose worker is gone."""
        folder = self.ground.log / slot
        if slot not in self.writers and folder.exists():
            count = sum(1 for _ in self.ground.log.iterdir())
            folder.rename(self.ground.log / f"q-{count}-{slot}")

    @rule()
    def sequence(self) -> None:
        self.sequencer = self.sequencer or self.ground.sequencer()
        self.sequencer.cycle(self.ground.now_ns)

    @rule()
    def stop_sequencer(self) -> None:
        if self.sequencer is not None:
            self.sequencer.close()
            self.sequencer = None

    @rule(at=st.integers(1, 40), how=st.sampled_from(["before", "after", "torn", "power"]))
    def kill_sequencer(self, at: int, how: str) -> None:
        """One that starts now, in its first cycles."""
        self.stop_sequencer()
        killed: Sequencer | None = None
        try:
            killed = self.ground.sequencer(Faulty(at, how))
            for _ in range(3):
                killed.cycle(self.ground.now_ns)
        except Killed:
            pass
        if killed is not None:
            killed.close()

    @invariant()
    def nothing_shrinks(self) -> None:
        if self.sequencer is not None:
            assert self.sequencer.signed.size >= self.size
            self.size = self.sequencer.signed.size

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        self.sequence()
        assert self.sequencer is not None
        while self.sequencer.cycle(self.ground.now_ns).records:
            pass
        self.stop_sequencer()
        for writer in self.writers.values():
            crash(writer)
        if self.ground.log.exists():
            self.ground.check(is_renamed=True)
        self.stack.close()


Story.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestStory = Story.TestCase
