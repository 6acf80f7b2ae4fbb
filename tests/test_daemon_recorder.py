"""Group commit: what a turn submits is one group, and nothing is released before it is durable."""

from collections.abc import Sequence
from pathlib import Path

import mypy.api
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksz_router.daemon.recorder import Recorded, Recorder

ROOT = Path(__file__).parents[1]


class Groups:
    """Keeps what was committed; a test may let it break."""

    def __init__(self) -> None:
        self.groups: list[list[bytes]] = []
        self.error: BaseException | None = None

    def commit(self, records: Sequence[bytes]) -> None:
        self.groups.append(list(records))
        if self.error is not None:
            raise self.error


@pytest.fixture
def log() -> Groups:
    return Groups()


@pytest.fixture
def recorder(log: Groups) -> Recorder[str, str]:
    return Recorder(log.commit, iter(range(100)).__next__)


def gone_on(recorder: Recorder[str, str]) -> tuple[list[str], list[str]]:
    """What may be forwarded and what may be released after a commit."""
    dispatches, releases = recorder.commit()
    return list(dispatches.value), list(releases.value)


def test_all_that_was_submitted_is_one_group(recorder: Recorder[str, str], log: Groups) -> None:
    """One write and one flush for a turn, and everything that hangs on it goes on in order."""
    recorder.release_after([b"1"], "a")
    recorder.submit([b"2", b"3"])
    recorder.forward_after(b"4", "b")
    recorder.release_after([b"5", b"6"], "c")
    recorder.forward_after(b"7", "d")
    assert log.groups == []

    assert gone_on(recorder) == (["b", "d"], ["a", "c"])
    assert log.groups == [[b"1", b"2", b"3", b"4", b"5", b"6", b"7"]]
    assert recorder.is_empty
    assert recorder.commits == [(7, 1)]


def test_nothing_is_released_twice(recorder: Recorder[str, str], log: Groups) -> None:
    """The next commit gives what came since, and only that."""
    recorder.release_after([b"1"], "a")
    recorder.forward_after(b"2", "b")
    assert gone_on(recorder) == (["b"], ["a"])
    recorder.release_after([b"3"], "c")
    assert not recorder.is_empty
    assert gone_on(recorder) == ([], ["c"])
    assert gone_on(recorder) == ([], [])
    assert log.groups == [[b"1", b"2"], [b"3"], []]


def test_a_commit_that_fails_releases_nothing_and_raises(
    recorder: Recorder[str, str], log: Groups
) -> None:
    """What hung on the group never goes on, whatever is tried afterwards."""
    log.error = OSError(5, "flush failed")
    recorder.release_after([b"1"], "a")
    recorder.forward_after(b"2", "b")

    with pytest.raises(OSError, match="flush failed"):
        recorder.commit()
    log.error = None
    assert gone_on(recorder) == ([], [])


@given(st.lists(st.tuples(st.sampled_from(["forward", "release", "none"]), st.booleans())))
def test_order_is_kept_and_nothing_is_lost_or_doubled(steps: list[tuple[str, bool]]) -> None:
    """However submissions and commits interleave, what comes back is what went in."""
    log = Groups()
    recorder: Recorder[int, int] = Recorder(log.commit, lambda: 0)
    records: list[bytes] = []
    back: dict[str, list[int]] = {"forward": [], "release": []}
    for number, (what, commits) in enumerate([*steps, ("none", True)]):
        mine = [b"%d.%d" % (number, n) for n in range(1 if what == "forward" else 3)]
        records += mine
        if what == "forward":
            recorder.forward_after(mine[0], number)
        elif what == "release":
            recorder.release_after(mine, number)
        else:
            recorder.submit(mine)
        if commits:
            dispatches, releases = recorder.commit()
            back["forward"] += dispatches.value
            back["release"] += releases.value
            for lane, numbers in back.items():
                sent = [n for n, (kind, _) in enumerate(steps[: number + 1]) if kind == lane]
                assert numbers == sent

    assert [record for group in log.groups for record in group] == records


def test_a_proof_is_made_by_the_recorder_alone() -> None:
    """At run time too: who has not recorded cannot say that it has."""
    with pytest.raises(AssertionError, match="only the recorder"):
        Recorded("a", object())


SNIPPET = '''
"""Each marked line must be refused; the others must pass."""
from collections.abc import Sequence

from ksz_router.daemon.opened import Exchange, Release
from ksz_router.daemon.recorder import Recorded
from ksz_router.daemon.session import Session
from ksz_router.daemon.upstream import Upstream


def f(u: Upstream, s: Session, e: Sequence[Exchange], r: Sequence[Release]) -> None:
    u.forward(e, 0)  # refused
    s.release(r, 0, 0)  # refused
    u.forward(e[0], 0)  # refused
    s.release(r[0], 0, 0)  # refused


def g(
    u: Upstream, s: Session, e: Recorded[Sequence[Exchange]], r: Recorded[Sequence[Release]]
) -> None:
    u.forward(e, 0)
    s.release(r, 0, 0)
    u.forward(r, 0)  # refused
    s.release(e, 0, 0)  # refused
    u.forward(e.value, 0)  # refused
    s.release(r.value, 0, 0)  # refused


def h(e: Sequence[Exchange]) -> Recorded[Sequence[Exchange]]:
    Recorded(e)  # refused
    return e  # refused
'''


def test_what_is_not_recorded_does_not_type_check(tmp_path: Path) -> None:
    """Law 2 by type: forwarding and releasing take a proof, and each misuse is an error."""
    file = tmp_path / "misuse.py"
    file.write_text(SNIPPET, encoding="utf-8")
    cache = ROOT / ".mypy_cache"
    arguments = ["--strict", "--no-error-summary", "--explicit-package-bases", "--config-file="]
    out, errors, _ = mypy.api.run([*arguments, f"--cache-dir={cache}", str(file)])

    wrong = {int(line.split(":")[1]) for line in out.splitlines() if ": error:" in line}
    lines = SNIPPET.splitlines()
    assert errors == ""
    assert wrong == {n for n, line in enumerate(lines, 1) if line.endswith("# refused")}
