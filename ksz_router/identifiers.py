"""INSZ and KBO numbers: judged once at the edge, trusted ever after.

The rules are those of the royal decree of 8 February 1991 (BIS numbers) and of the published
check-digit rules of the National Register and the Crossroads Bank for Enterprises. Nothing here
depends on the clock of the host: the century of an INSZ follows from its check digits alone,
since no nine digits give the same check digits in both centuries.

All functions take text as it came from a peer, accept ASCII digits only and never raise on it.
"""

from typing import NewType

Kbo = NewType("Kbo", str)
"""A ten-digit enterprise number. Public: it may appear in any log."""

_DAYS_IN_MONTH = (31, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""Indexed by month; month 0 is an unknown month, in which any day may have been given out."""


class InvalidIdentifierError(ValueError):
    """The text is not an identifier. The message never contains it."""


def is_insz(text: str) -> bool:
    """Say whether ``text`` is a well-formed INSZ: eleven digits, check digits, calendar.

    A month may be 00 (unknown), raised by 20 (BIS number, sex unknown at issue) or by 40 (BIS
    number, sex known). A day may be 00 (unknown). A counter 000 exists in BIS numbers only.
    """
    if len(text) != 11 or not (text.isascii() and text.isdigit()):
        return False
    number = int(text)
    body, check = divmod(number, 100)
    remainder = body % 97
    if check == 97 - remainder:
        century = 1900
    elif check == 97 - (remainder + 68) % 97:  # 2 000 000 000 mod 97 = 68: a 2 before the nine
        century = 2000
    else:
        return False
    year, month, day = body // 10_000_000, body // 100_000 % 100, body // 1_000 % 100
    if month >= 40:
        month -= 40
    elif month >= 20:
        month -= 20
    elif body % 1_000 == 0:
        return False
    if month > 12 or day > _DAYS_IN_MONTH[month]:
        return False
    return (month, day) != (2, 29) or _is_leap(century + year)


def is_kbo(text: str) -> bool:
    """Say whether ``text`` is a well-formed enterprise number: 0 or 1, then nine digits."""
    if len(text) != 10 or not (text.isascii() and text.isdigit()) or text[0] > "1":
        return False
    body, check = divmod(int(text), 100)
    return check == 97 - body % 97


def is_application(text: str) -> bool:
    """Say whether ``text`` is a program number: eleven ASCII digits that are no INSZ.

    SSDN ``UserID``: "either the SSIN of the person or a program ID (also in SSIN format)". Program
    numbers are public and may stand in any log, so a number that could be a person's is none.
    """
    return len(text) == 11 and text.isascii() and text.isdigit() and not is_insz(text)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


class Insz:
    """A well-formed social-security number of a person. It does not print itself.

    Raises:
        InvalidIdentifierError: ``digits`` is not a well-formed INSZ.
    """

    __slots__ = ("digits",)

    def __init__(self, digits: str) -> None:
        if not is_insz(digits):
            raise InvalidIdentifierError(
                "not an INSZ: eleven digits with a date and matching check digits are expected"
            )
        self.digits = digits

    def __repr__(self) -> str:
        return "Insz(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Insz) and self.digits == other.digits

    def __hash__(self) -> int:
        return hash(self.digits)


def parse_kbo(text: str) -> Kbo:
    """Return ``text`` as an enterprise number.

    Raises:
        InvalidIdentifierError: it is not one.
    """
    if not is_kbo(text):
        raise InvalidIdentifierError(
            "not a KBO number: ten digits that begin with 0 or 1, check digits matching"
        )
    return Kbo(text)
