"""The alert rules: they hold together, name metrics that exist, and each alert has its page."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ksz_router.codes import Code
from ksz_router.config import Config
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.daemon.histogram import SECONDS
from ksz_router.daemon.metrics import Metrics, blame
from ksz_router.daemon.sequencer_metrics import SequencerMetrics
from ksz_router.model import Kind

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "config" / "prometheus"
RULES = (FOLDER / "rules.yml").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
ALERTS = sorted(set(re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)))
PARTS = ["Meaning", "Impact", "Check", "Mend", "Escalate"]


def section(alert: str) -> str:
    """What the runbook says of an alert."""
    return RUNBOOK.partition(f"\n## {alert}\n")[2].partition("\n## ")[0]


def exported() -> set[str]:
    """Every name that a worker, the sequencer or the directory exports, as rules write it."""
    names = set()
    of_programs = (*SequencerMetrics(Config()).collect(), *DirectoryMetrics().collect())
    for family in (*Metrics().collect(), *of_programs):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names | gauges() | {"process_start_time_seconds", "up"}


def gauges() -> set[str]:
    """Those that are read at scrape time, from the tables that name them."""
    keys = set()
    for module, function in (("gauges", "gauges_of"), ("contexts", "gauges")):
        tree = ast.parse((ROOT / f"ksz_router/daemon/{module}.py").read_text(encoding="utf-8"))
        (found,) = (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == function
        )
        (table,) = (node for node in ast.walk(found) if isinstance(node, ast.Dict))
        keys |= {key.value for key in table.keys if isinstance(key, ast.Constant)}
    assert all(isinstance(key, str) for key in keys)
    return {f"ksz_router_{key!s}" for key in keys}


def test_every_metric_that_a_rule_uses_exists() -> None:
    """An alert on a name that nobody exports would never fire."""
    used = set(re.findall(r"\b(?:ksz_router|process)_\w+\b(?!:)", RULES))
    recorded = {name for name in used if f"{name}:" in RULES}
    assert used - recorded <= exported()
    assert len(used) > 8


def test_what_a_rule_records_is_used_and_what_it_uses_is_recorded() -> None:
    """Names with colons are made here and nowhere else."""
    made = set(re.findall(r"- record: (\S+)", RULES))
    used = set(re.findall(r"(?<!record: )\bksz_router:[\w:]+", RULES))
    assert used == made


def test_the_values_of_labels_that_rules_pick_exist() -> None:
    """Bounds are exact buckets, reasons are codes, and some code blames the router."""
    bounds = set(re.findall(r'le="([^"]+)"', RULES))
    assert bounds == {"1.0", "2.0"} <= {str(bound) for bound in SECONDS}
    reasons = {word for text in re.findall(r'reason=~"([^"]+)"', RULES) for word in text.split("|")}
    assert reasons <= {code.name.lower() for code in Code}
    picked = set(re.findall(r'blame="(\w+)"', RULES))
    assert picked == {"router"} <= {blame(code) for code in Code}


def test_the_budgets_are_those_of_the_agreement() -> None:
    """Article 7: 99 % within 1 s, 99.5 % within 2 s, available 99 %."""
    budgets = set(re.findall(r"ksz_router:(\w+):ratio_rate\w+ > [\d.]+ \* ([\d.]+)", RULES))
    assert budgets == {("over_1s", "0.01"), ("over_2s", "0.005"), ("faults", "0.01")}


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_its_page_in_the_runbook(alert: str) -> None:
    """Where its link leads, in the five parts that a tired reader knows."""
    rules = re.findall(rf"- alert: {alert}\n((?: {{8}}.*\n?)+)", RULES)
    assert rules
    for rule in rules:
        assert f"runbook_url: docs/runbook.md#{alert.lower()}\n" in rule
        assert re.search(r"severity: (page|ticket)", rule)
    assert re.findall(r"^- \*\*(\w+)\*\*: ", section(alert), re.MULTILINE) == PARTS
    assert len(section(alert).splitlines()) <= 30


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed here")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
)
def test_prometheus_itself_accepts_the_rules(words: tuple[str, ...]) -> None:
    """Its own checker, and its own run of the rules over made-up measurements."""
    done = subprocess.run(
        ["promtool", *words], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_times_that_were_noted_do_not_pile_up() -> None:
    """They are sorted into their buckets as entries become durable, asked for or not."""
    metrics = Metrics()
    for _ in range(4):
        for _ in range(500):
            metrics.answered(Kind.CONSULTATION, Code.ANSWERED_WITH_DATA, 5, 5)
            metrics.request_leg.note(5)
            metrics.source.note(5)
        metrics.committed([(1_000, 5)], 0.0)
    noting = (
        metrics.router[Kind.CONSULTATION], metrics.request_leg, metrics.outcome_leg,
        metrics.source, metrics.commit, metrics.commit_records,
    )  # fmt: skip
    assert [len(histogram._counted.noted) for histogram in noting] == [0] * 6
    assert [sum(histogram.counts) for histogram in noting] == [2_000] * 4 + [4] * 2
