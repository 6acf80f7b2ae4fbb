"""The bench of the start: a router with a made-up rulebook starts, is measured and stops."""

from pathlib import Path

from bench.large import SERVICES, write_text
from bench.start import run_once
from bench.world import CENTRE, SOURCE
from contrib.stand import Stand, free_ports
from ksz_router.rulebook.check import check
from ksz_router.rulebook.source import read

GRANTS = 7 * SERVICES


def test_the_rulebook_has_as_many_grants_as_were_asked_for_and_no_error(tmp_path: Path) -> None:
    """By role and by institution: the example's come on top."""
    write_text(tmp_path / "text", GRANTS)
    text, findings = read(tmp_path / "text")
    ids = [placed.row.id for of in text.deliberations for placed in of.grants]
    assert sum(id_.startswith("large-") for id_ in ids) == GRANTS
    assert not [finding for finding in findings + check(text) if finding.is_error]


def test_a_start_is_measured_and_finds_the_file_that_was_prepared(tmp_path: Path) -> None:
    """As after a router that ran for a while."""
    write_text(tmp_path / "text", GRANTS)
    stand = Stand.make(
        tmp_path / "stand",
        institutions=[CENTRE, SOURCE],
        endpoints={SOURCE: free_ports(1)[0]},
        workers=2,
        text=tmp_path / "text",
    )
    run_once(stand, waits=True)
    prepared = {(stand.log / slot / "prepared").stat().st_ino for slot in ("w0", "w1")}
    measured = run_once(stand, waits=False)
    assert measured["cpu_s"] > 0
    assert measured["seconds"] > 0
    used = {(stand.log / slot / "000002.wal").stat().st_ino for slot in ("w0", "w1")}
    assert used == prepared
