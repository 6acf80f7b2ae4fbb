"""``ksz-router log stats``: sealed exchanges counted, for people, for programs, as a page."""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ksz_router import cli
from ksz_router.cli.log_stats import bar_text
from ksz_router.codes import Code
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.exchange_rows import derive, narrowed
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.statistics import BY, Totals, read_statistics
from ksz_router.privacylog.entry import Entry, Kind, canonical
from tests import worlds as w
from tests.statistics_world import begin_us, row, seal

REFUSED = {"code": 4001, "outcome": 4001, "destination": None, "router_us": 0, "source_us": 0}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two runs of one quarter and one of another; the same combination in two of them."""
    folder = tmp_path / "archive"
    folder.mkdir()
    seal(folder, [row(202609, exchanges=7, over_1s=1), row(202608, **REFUSED)])
    seal(folder, [row(202609, exchanges=3, requester="0999017846")])
    seal(folder, [row(202610, exchanges=5, service="Handi", service_version=1, violation=True)])
    return folder


def stats(archive: Path, *words: str) -> int:
    return cli.main(["log", "stats", "--archive", str(archive), *words])


def test_counts_are_shown_with_bars_and_up_to_where_they_reach(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a month, the longest bar for the most; the rest on the standard error."""
    assert stats(archive) == cli.OK
    shown = capsys.readouterr()
    head, *lines = shown.out.splitlines()
    assert head.split() == [
        "month",
        "exchanges",
        "refused",
        "marked",
        *["within", "1", "s", "within", "2", "s"],
    ]
    assert [line.split()[:4] for line in lines] == [
        ["2026-08", "1", "1", "0"],
        ["2026-09", "10", "0", "0"],
        ["2026-10", "5", "0", "5"],
    ]
    assert [line.count("█") for line in lines] == [3, 30, 15]
    assert "below leaf 300, up to 2026-10-31" in shown.err


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("month", {"202608": 1, "202609": 10, "202610": 5}),
        ("service", {"UnemploymentData v3": 11, "Handi v1": 5}),
        ("requester", {"0999016460": 13, "0999017846": 3}),
        ("destination", {"0999010126": 15, "": 1}),
        ("verdict", {"0": 15, "4001": 1}),
    ],
)
def test_what_is_counted_can_be_had_by_each_column(
    archive: Path, capsys: pytest.CaptureFixture[str], by: str, expected: dict[str, int]
) -> None:
    """As JSON and as CSV the same, the most first."""
    assert stats(archive, "--by", by, "--json") == cli.OK
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each[by]: each["exchanges"] for each in found} == expected
    assert stats(archive, "--by", by, "--csv") == cli.OK
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows == [{name: str(value) for name, value in each.items()} for each in found]
    counts = [each["exchanges"] for each in found]
    assert by == "month" or counts == sorted(counts, reverse=True)
    assert set(BY) == {"month", "service", "requester", "destination", "verdict"}


@pytest.mark.parametrize(
    ("words", "months"),
    [
        (("--from", "2026-09"), ["202609", "202610"]),
        (("--to", "2026-09"), ["202608", "202609"]),
        (("--to", "2026-08"), ["202608"]),
        (("--from", "2026-10", "--to", "2026-10"), ["202610"]),
    ],
)
def test_months_bound_what_is_counted(
    archive: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], months: list[str]
) -> None:
    """Both ends included."""
    assert stats(archive, *words, "--json") == cli.OK
    found = [json.loads(line)["month"] for line in capsys.readouterr().out.splitlines()]
    assert found == months


def test_a_page_is_written(archive: Path, tmp_path: Path) -> None:
    """One file; where it cannot be written, one clear word."""
    assert stats(archive, "--html", str(tmp_path / "use.html")) == cli.OK
    assert "Use of the network, 2026-08 to 2026-10" in (tmp_path / "use.html").read_text("utf-8")
    assert stats(archive, "--html", str(tmp_path)) == cli.NOT_IN_ORDER


def test_where_nothing_is_sealed_that_is_said(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No archive, or none of these months."""
    assert stats(tmp_path / "none") == cli.NOT_IN_ORDER
    assert "nothing is sealed here yet" in capsys.readouterr().err
    assert stats(archive, "--from", "2027-01") == cli.NOT_IN_ORDER
    assert "no sealed exchange in these months" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_rollup_that_cannot_be_read_is_no_smaller_count(archive: Path, damage: str) -> None:
    """A figure that is too small would be believed."""
    (file, *_) = sorted((archive / "sealed" / "q=2026Q3" / "r").iterdir())
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[:-5])
    with pytest.raises(PrivacyLogError):
        read_statistics(archive, ["month"])
    assert stats(archive) == cli.NOT_IN_ORDER


@pytest.mark.parametrize(
    "words",
    [("--from", "2026-13"), ("--from", "2026"), ("--from", "2026-10", "--to", "2026-09")],
)
def test_a_wrong_month_is_said(archive: Path, words: Sequence[str]) -> None:
    """Before anything is read."""
    assert stats(archive, *words) == cli.USAGE


def test_without_the_extra_the_verb_says_what_to_install(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, and no traceback."""
    monkeypatch.setitem(sys.modules, "ksz_router.privacylog.archive.statistics", None)
    assert stats(archive) == cli.NOT_IN_ORDER
    assert "install that extra" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "most", "bar"),
    [(0, 9, ""), (9, 9, "█" * 30), (1, 10_000, "▏"), (3, 10, "█" * 9), (0, 0, "")],
)
def test_a_bar_is_as_long_as_its_share(count: int, most: int, bar: str) -> None:
    """And something is never nothing."""
    assert bar_text(count, most) == bar


def entries() -> st.SearchStrategy[list[dict[str, Any]]]:
    exchange = st.fixed_dictionaries({
        "at_us": st.sampled_from([begin_us(202610), begin_us(202611), begin_us(202611) - 1]),
        "service": st.sampled_from(["A", "B"]),
        "requester": st.sampled_from([w.CENTRE, w.MANAGER]),
        "code": st.sampled_from([0, 0, int(Code.NO_GRANT)]),
        "violations": st.sampled_from([(), (f"source:log:{w.RVA}",)]),
        "router_us": st.integers(0, 3_000_000),
        "source_us": st.integers(0, 5_000_000),
    })  # fmt: skip
    return st.lists(exchange, min_size=1, max_size=30)


@settings(max_examples=15, phases=[Phase.generate])
@given(drawn=entries())
def test_figures_are_the_plain_sums_over_the_entries(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[dict[str, Any]]
) -> None:
    """From entries by the sealer's own derivation to the figures, against a sum by hand."""
    records = []
    for number, each in enumerate(drawn):
        shared = {
            "exchange": (number + 1).to_bytes(16, "big"), "at_us": each["at_us"],
            "service": each["service"], "service_version": 1, "requester": each["requester"],
        }  # fmt: skip
        passed = not each["code"]
        asked = Entry(
            kind=Kind.REQUEST, code=each["code"], destinations=(w.RVA,) if passed else (),
            violations=each["violations"] if passed else (), **shared,
        )  # fmt: skip
        spent = {"router_us": each["router_us"], "source_us": each["source_us"]} if passed else {}
        ended = Entry(kind=Kind.OUTCOME, code=each["code"] or 10001, **shared, **spent)
        records += [canonical(asked), canonical(ended)]
    # Behind the last entry of a slot more may follow: it is open as long as nothing does.
    records.append(canonical(Entry(kind=Kind.SUMMARY, at_us=begin_us(202611))))
    table = to_table(
        records, first_seq=0, q="2026Q4", node="n", slots=["w0"] * len(records),
        record_numbers=range(len(records)),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("archive")
    seal(folder, derive([narrowed(table)], []).r.to_pylist())
    found = read_statistics(folder, ["service", "requester"])
    assert found.totals == plain_sum(drawn)
    for name in ("service", "requester"):
        for key, totals in found.groups[name]:
            value = key.removesuffix(" v1")
            assert totals == plain_sum([each for each in drawn if each[name] == value])
    counted = Counter(each["requester"] for each in drawn)
    assert {group.key: group.totals.exchanges for group in found.groups["requester"]} == counted


def plain_sum(drawn: Sequence[dict[str, Any]]) -> Totals:
    passed = [each for each in drawn if not each["code"]]
    return Totals(
        exchanges=len(drawn),
        refused=len(drawn) - len(passed),
        violations=sum(bool(each["violations"]) for each in passed),
        timed=len(passed),
        over_1s=sum(each["router_us"] > 1_000_000 for each in passed),
        over_2s=sum(each["router_us"] > 2_000_000 for each in passed),
        router_us=sum(each["router_us"] for each in passed),
        source_us=sum(each["source_us"] for each in passed),
    )


def test_a_name_that_a_manifest_may_not_have_is_not_opened(archive: Path) -> None:
    """Files are named by the manifests, and these by the chain alone."""
    with pytest.raises(PrivacyLogError):
        file_of(archive, "../../etc/passwd")
