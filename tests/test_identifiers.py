"""Numbers of persons and enterprises: the published vectors, and an independent library."""

from datetime import date
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stdnum.be import bis, nn, vat
from stdnum.exceptions import ValidationError

from ksz_router.identifiers import (
    Insz,
    InvalidIdentifierError,
    is_application,
    is_insz,
    is_kbo,
    parse_kbo,
)


def in_full_width(digits: str) -> str:
    """Return digits that look like these and are none of ASCII's."""
    return "".join(chr(0xFF10 + int(digit)) for digit in digits)


# Computed; the counters 997 and 998 are practically never given out.
VALID = {
    "85073099734": "1985-07-30, male counter 997",
    "85073099833": "the same day, female counter 998",
    "85073093497": "check digits 97",
    "85073093301": "check digits 01",
    "05073093297": "2005, check digits 97",
    "00010199776": "2000-01-01",
    "00010199747": "1900-01-01, the same nine digits",
    "24022999837": "2024-02-29, a leap day",
    "75000099793": "month and day unknown",
    "75110099872": "day unknown",
    "72231599732": "BIS, sex unknown",
    "85493099737": "BIS, sex known",
    "01520599842": "BIS, sex known, 2001",
    "80200099747": "BIS, date and sex unknown",
    "80400099889": "BIS, date unknown, sex known",
    "80231500033": "BIS with counter 000",
}
INVALID = {
    "85073099735": "check digits one too high",
    "58073099734": "two digits swapped",
    "85073099700": "check digits 00",
    "85133099776": "month 13",
    "85073299771": "day 32",
    "85073000061": "counter 000 in a number that is no BIS number",
    "85333099722": "month 33",
    "85533099765": "month 53",
    "85023099796": "30 February",
    "23022999717": "29 February of a year that is no leap year",
    "8507309973": "ten digits",
    "850730997344": "twelve digits",
    "85073099734\n": "a newline",
    "٨٥٠٧٣٠٩٩٧٣٤": "digits of another script",
    in_full_width("85073099734"): "full-width digits",
    "85.07.30-997.34": "separators",
    " 8507309973": "a blank",
    "-8507309973": "a sign",
    "": "nothing",
    "8" * 100_000: "too long for an integer",
}
KBO_VALID = ["0566988259", "0999999922", "1000000021", "1999999943", "1000002197", "0206731645"]
KBO_INVALID = [
    "0999999923", "0123456789", "9000000011", "056698825", "2999999964", "8000000071",
    "0566988259\n", in_full_width("0566988259"), "BE0566988259", "0566.988.259", "", "0" * 10,
]  # fmt: skip

digits = st.text("0123456789", min_size=9, max_size=9)
texts = st.text(max_size=13) | st.from_regex(r"[0-9]{10,12}\n?") | digits.map(lambda d: d + "97")


@st.composite
def well_checked(draw: st.DrawFn) -> str:
    """Eleven digits whose check digits are right for one of the centuries."""
    year, month, day = (draw(st.integers(0, most)) for most in (99, 55, 33))
    body = ((year * 100 + month) * 100 + day) * 1000 + draw(st.integers(0, 999))
    century = draw(st.sampled_from([0, 2_000_000_000]))
    return f"{body:09}{97 - (body + century) % 97:02}"


def oracle(number: str) -> bool:
    """What python-stdnum says, in a year in which every birth of this century has been.

    It takes the year from the clock of the host, hence the patch; ours depends on no clock.
    """
    last = date(2099, 12, 31)
    with patch("stdnum.be.nn.datetime.date", wraps=date) as clock:
        clock.today.return_value = last
        for kind in (nn, bis):
            try:
                kind.validate(number)
            except ValidationError:
                continue
            return True
    return False


def is_known_difference(number: str) -> bool:
    """Where ours is stricter: days that no month has, and counter 000 outside BIS numbers."""
    year, month, day, counter = (
        int(number[:2]), int(number[2:4]) % 20, int(number[4:6]), int(number[6:9])
    )  # fmt: skip
    is_late = (97 - int(number[:9]) % 97) != int(number[9:])
    if counter == 0 and int(number[2:4]) < 20:
        return True
    if day == 0:
        return False
    try:
        date((2000 if is_late else 1900) + year, month or 1, day)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("number", VALID, ids=VALID.values())
def test_a_well_formed_number_is_taken(number: str) -> None:
    """Both centuries, unknown dates, BIS numbers of both kinds."""
    assert is_insz(number)
    assert Insz(number).digits == number


@pytest.mark.parametrize("text", INVALID, ids=INVALID.values())
def test_what_is_no_number_is_refused(text: str) -> None:
    """And the message does not repeat it."""
    assert not is_insz(text)
    with pytest.raises(InvalidIdentifierError) as caught:
        Insz(text)
    assert not text or text not in str(caught.value)


@given(well_checked())
def test_ours_agrees_with_an_independent_library(number: str) -> None:
    """But for the calendar and the counter 000, where ours is stricter, never more lenient."""
    if is_insz(number):
        assert oracle(number)
        assert not is_known_difference(number)
    else:
        assert not oracle(number) or is_known_difference(number)


@given(well_checked(), st.integers(0, 10), st.integers(1, 9))
def test_a_changed_digit_is_seldom_taken(number: str, place: int, by: int) -> None:
    """Whatever it becomes, the library's opinion on check digits is the same."""
    changed = number[:place] + str((int(number[place]) + by) % 10) + number[place + 1 :]
    if is_insz(changed):
        assert oracle(changed)


@given(st.integers(0, 999_999_999))
def test_no_nine_digits_have_the_same_check_digits_in_both_centuries(body: int) -> None:
    """So the century follows from the number alone."""
    assert 97 - body % 97 != 97 - (body + 2_000_000_000) % 97


@given(texts)
def test_no_text_makes_it_raise(text: str) -> None:
    """And what is taken has ASCII digits only."""
    for judge, length in ((is_insz, 11), (is_application, 11), (is_kbo, 10)):
        if judge(text):
            assert len(text) == length
            assert set(text) <= set("0123456789")


def test_a_person_does_not_print() -> None:
    """Neither by ``repr`` nor by ``str`` nor in a list; equal numbers are one key."""
    insz = Insz("85073099734")
    assert f"{insz} {insz!r} {[insz]}" == "Insz(***) Insz(***) [Insz(***)]"
    assert {insz, Insz("85073099734")} == {insz}
    assert insz != Insz("85073099833")
    assert insz != "85073099734"


def test_a_program_number_is_not_a_person() -> None:
    """Eleven digits without a date; a person's number could be one."""
    assert is_application("00901234567")
    assert not is_insz("00901234567")
    assert not is_application("0090123456x")


@pytest.mark.parametrize("text", KBO_VALID)
def test_an_enterprise_number_is_taken(text: str) -> None:
    """First digit 0 or 1, check digits 97 minus the rest."""
    assert parse_kbo(text) == text


@pytest.mark.parametrize("text", KBO_INVALID)
def test_what_is_no_enterprise_number_is_refused(text: str) -> None:
    """Establishment numbers, separators, prefixes and other scripts among them."""
    assert not is_kbo(text)
    with pytest.raises(InvalidIdentifierError) as caught:
        parse_kbo(text)
    assert not text or text not in str(caught.value)


@given(st.integers(0, 99_999_999), st.integers(0, 99))
@example(0, 0)
@example(97, 0)
@example(96, 98)
def test_enterprise_numbers_agree_with_an_independent_library(body: int, check: int) -> None:
    """But for check digits 00, 98 and 99, which the rule never gives and the library takes."""
    right = 97 - body % 97
    assert is_kbo(f"{body:08}{right:02}") == vat.is_valid(f"{body:08}{right:02}")
    text = f"{body:08}{check:02}"
    assert is_kbo(text) == (vat.is_valid(text) and 1 <= check <= 97)
