"""Key files and quarters: made once, for their owner only, and committed to."""

import json
from pathlib import Path

import pytest

from ksz_router.identifiers import InvalidIdentifierError
from ksz_router.privacylog.keys import (
    LABELS,
    KeysError,
    Tokens,
    load,
    make,
    quarter_after,
    quarter_before,
    quarter_begin_ns,
    quarter_of,
)
from tests.privacylog_world import PERSON, World


def test_quarters_follow_each_other() -> None:
    """Quarters are of UTC, begin and end to the nanosecond."""
    assert quarter_after("2026Q4") == "2027Q1"
    assert quarter_before("2027Q1") == "2026Q4"
    begin = quarter_begin_ns("2027Q1")
    assert (quarter_of(begin - 1), quarter_of(begin)) == ("2026Q4", "2027Q1")


def test_a_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """Replacing a key file would make a quarter unreadable; sharing it, readable."""
    file = make(tmp_path, "2026Q4")
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    with pytest.raises(KeysError, match="never replaced"):
        make(tmp_path, "2026Q4")
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["2026Q4.json"]
    file.chmod(0o640)
    with pytest.raises(KeysError, match="chmod 600"):
        load(tmp_path, "2026Q4")


def test_a_missing_key_file_says_which_command_makes_it(tmp_path: Path) -> None:
    """The message is what an operator does next."""
    with pytest.raises(KeysError, match=r"ksz-router keys quarter --folder .* --quarter 2026Q4"):
        load(tmp_path, "2026Q4")


@pytest.mark.parametrize("label", LABELS)
def test_a_changed_key_breaks_its_commitment(tmp_path: Path, label: str) -> None:
    """No other key can be presented later, and the message holds no key."""
    file = make(tmp_path, "2026Q4")
    table = json.loads(file.read_text())
    table["keys"][label] = "00" * 32
    file.write_text(json.dumps(table))
    with pytest.raises(KeysError, match=f"the {label} key breaks its commitment"):
        load(tmp_path, "2026Q4")


@pytest.mark.parametrize("text", ["", "8507300332", "850730033281", "8507300332x", "٨5073003328"])
def test_a_token_is_made_of_eleven_ascii_digits(tmp_path: Path, text: str) -> None:
    """What is no number gets no token, and the message does not repeat it."""
    world = World(tmp_path)
    with pytest.raises(InvalidIdentifierError) as caught:
        world.tokens.person(text)
    assert not text or text not in str(caught.value)


def test_tokens_differ_by_quarter_and_by_role(tmp_path: Path) -> None:
    """A person as user and as subject, or in two quarters, cannot be told to be one."""
    world = World(tmp_path)
    later = Tokens(load(world.keys, "2027Q1"))
    four = {f(PERSON) for t in (world.tokens, later) for f in (t.person, t.user)}
    assert len(four) == 4
    with pytest.raises(KeysError):
        later.person_number(world.tokens.person(PERSON))
