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
def recorder(log: Groups) -> Recorder[str]:
    return Recorder(log.commit, iter(range(100)).__next__)


def released(recorder: Recorder[str]) -> list[str]:
    return [proof.value for proof in recorder.commit()]


def test_all_that_was_submitted_is_one_group(recorder: Recorder[str], log: Groups) -> None:
    """One write and one flush for a turn, and everything that hangs on it goes on in order."""
    recorder.submit([b"1"], "a")
    recorder.submit([b"2", b"3"], None)
    recorder.submit([b"4"], "b")
    assert log.groups == []

    assert released(recorder) == ["a", "b"]
    assert log.groups == [[b"1", b"2", b"3", b"4"]]
    assert recorder.is_empty
    assert recorder.commits == [(4, 1)]


def test_nothing_is_released_twice(recorder: Recorder[str], log: Groups) -> None:
    """The next commit gives what came since, and only that."""
    recorder.submit([b"1"], "a")
    assert released(recorder) == ["a"]
    recorder.submit([b"2"], "b")
    assert not recorder.is_empty
    assert released(recorder) == ["b"]
    assert log.groups == [[b"1"], [b"2"]]


def test_a_commit_that_fails_releases_nothing_and_raises(
    recorder: Recorder[str], log: Groups
) -> None:
    """What hung on the group never goes on, whatever is tried afterwards."""
    log.error = OSError(5, "flush failed")
    recorder.submit([b"1"], "a")

    with pytest.raises(OSError, match="flush failed"):
        recorder.commit()
    log.error = None
    assert recorder.commit() == []


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans())))
def test_order_is_kept_and_nothing_is_lost_or_doubled(steps: list[tuple[int, bool]]) -> None:
    """However submissions and commits interleave, what comes back is what went in."""
    log = Groups()
    recorder: Recorder[int] = Recorder(log.commit, lambda: 0)
    back, records = [], []
    for number, (count, commits) in enumerate(steps):
        mine = [b"%d.%d" % (number, n) for n in range(count)]
        records += mine
        recorder.submit(mine, number)
        if commits:
            back += [proof.value for proof in recorder.commit()]
            assert back == list(range(number + 1))
    back += [proof.value for proof in recorder.commit()]

    assert back == list(range(len(steps)))
    assert [record for group in log.groups for record in group] == records


def test_a_proof_is_made_by_the_recorder_alone() -> None:
    """At run time too: who has not recorded cannot say that it has."""
    with pytest.raises(AssertionError, match="only the recorder"):
        Recorded("a", object())


def test_a_proof_is_narrowed_to_what_it_holds_only(recorder: Recorder[str]) -> None:
    """A proof for one kind of continuation does not pass for another."""
    recorder.submit([b"1"], "a")
    (proof,) = recorder.commit()
    assert proof.narrowed(str) is proof
    with pytest.raises(AssertionError):
        proof.narrowed(int)


SNIPPET = '''
"""Each marked line must be refused; the others must pass."""
from ksz_router.daemon.opened import Dispatch, Release
from ksz_router.daemon.recorder import Recorded
from ksz_router.daemon.session import Session
from ksz_router.daemon.upstream import Upstream


def f(u: Upstream, s: Session, d: Dispatch, r: Release) -> None:
    u.forward(d)  # refused
    s.release(r, 0)  # refused


def g(u: Upstream, s: Session, d: Recorded[Dispatch], r: Recorded[Release]) -> None:
    u.forward(d)
    s.release(r, 0)
    u.forward(r)  # refused
    s.release(d, 0)  # refused
    u.forward(d.value)  # refused
    s.release(r.value, 0)  # refused


def h(d: Dispatch) -> Recorded[Dispatch]:
    Recorded(d)  # refused
    return d  # refused
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
