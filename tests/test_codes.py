"""The registry of codes: what holds of every number, today and in every later release."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from ksz_router import official
from ksz_router.codes import MEANINGS, Action, Code, Stage

FROZEN: dict[str, str] = json.loads(
    (Path(__file__).parent / "vectors" / "wire" / "codes.json").read_text(encoding="utf-8")
)
STATUSES = {"DATA_FOUND", "NO_DATA_FOUND", "NO_RESULT", "INCOMPLETE_DATA"}


def test_a_number_once_given_keeps_its_name() -> None:
    """The frozen list may only grow: codes outlive the programs that read them."""
    now = {str(int(code)): code.name for code in Code}

    assert {number: now.get(number) for number in FROZEN} == FROZEN
    assert set(now) == set(FROZEN), "a new code is added to tests/vectors/wire/codes.json as well"


def test_no_number_and_no_name_is_given_twice() -> None:
    """An alias in an enum would hide behind the first name."""
    assert len(Code.__members__) == len({int(code) for code in Code})
    assert max(Counter(FROZEN.values()).values()) == 1


def test_the_thousands_of_a_code_are_its_stage() -> None:
    """A reader of a bare number knows who must act, and every stage is in use."""
    assert {code: code.stage.value for code in Code} == {code: code // 1000 for code in Code}
    assert {code.stage for code in Code} == set(Stage)
    assert [stage.value for stage in Stage] == list(range(len(Stage)))


def test_codes_stand_in_the_order_of_the_life_of_an_exchange() -> None:
    """Rules are tried in the order of their numbers."""
    assert list(Code) == sorted(Code)


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_what_travels_beside_a_code_is_of_the_network(code: Code) -> None:
    """The official code is on the published list, and the status in the public enumeration."""
    meaning = MEANINGS[code]

    assert meaning.status in STATUSES
    assert meaning.text
    assert not meaning.text.endswith(".")
    if code is Code.CLOSED_IN_PEACE:
        assert meaning.official == ""
    else:
        assert meaning.official in official.status_codes()


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_the_status_is_the_one_that_the_published_list_gives(code: Code) -> None:
    """Where the list shows a value for the official code, ours is that value."""
    meaning = MEANINGS[code]
    row = official.status_codes().get(meaning.official)

    if row is not None and row.value is not None:
        assert meaning.status == row.value


def test_a_refusal_before_the_person_never_names_a_code_about_the_person() -> None:
    """Who may not ask learns nothing about whom it asked for."""
    about_a_person = {"MSG00005", "MSG00006", "MSG00007", "MSG00009", "MSG00012", "MSG00021"}
    for code, meaning in MEANINGS.items():
        if code.stage < Stage.OWN_INTEGRATION:
            assert meaning.official not in about_a_person


def test_only_an_answer_of_a_source_finds_data() -> None:
    """No refusal passes for an answer, and no answer for a refusal."""
    for code, meaning in MEANINGS.items():
        finds = meaning.status in ("DATA_FOUND", "INCOMPLETE_DATA")
        assert finds <= (code.stage is Stage.ANSWERED)
    answered = {code for code in Code if code.stage is Stage.ANSWERED}
    assert all(MEANINGS[code].status != "NO_RESULT" for code in answered)


def test_what_to_do_next_fits_the_stage() -> None:
    """Rights are asked for, data mended; a full window is waited for."""
    for code, meaning in MEANINGS.items():
        if code.stage in (Stage.RIGHT, Stage.GRANT):
            assert meaning.action is Action.ASK_FOR_THE_RIGHT
        if code.stage is Stage.SYNTAX:
            assert meaning.action is Action.MEND_THE_DATA
        if Code.CONNECTION_WINDOW_FULL <= code <= Code.LOG_NOT_WRITABLE:
            assert meaning.action is Action.RETRY_AT


def test_the_published_list_ships_with_the_package() -> None:
    """The comparison above is against data of our own."""
    assert files("ksz_router").joinpath("data", "status_codes.json").is_file()
    assert len(official.status_codes()) > 20
