"""How figures and findings are put into words: what a finding says, and what to do about it."""

from typing import Final, NamedTuple

from ksz_router.report.directory_findings import Finding, Terms

DASH = "\N{EN DASH}"
"""Where there is nothing to divide by."""


class Meaning(NamedTuple):
    """A finding in words."""

    name: str
    what: str
    """What is so of the line."""
    mend: str
    """What the institution does that keeps the file."""


_MEANINGS: Final = {
    Finding.AFTER_DEATH: Meaning(
        "In force after death",
        "The person is dead, and the line has not ended.",
        "end the line, unless the file itself goes on",
    ),
    Finding.CANCELLED_NUMBER: Meaning(
        "Under a cancelled number",
        "The number was cancelled, and the line has not ended.",
        "inscribe the person under the right number, remove this line",
    ),
    Finding.REPLACED_NUMBER: Meaning(
        "Under a replaced number",
        "The person has a newer number, and the line has not ended under the old one.",
        "inscribe under the number in use, remove this line",
    ),
    Finding.SAME_TWICE: Meaning(
        "Same capacity twice",
        "Two lines in force of one capacity: under two numbers, or with and without type.",
        "keep one of them",
    ),
    Finding.EXCLUDING_EACH_OTHER: Meaning(
        "Capacities that exclude each other",
        "Two capacities in force of which the official labels say the contrary.",
        "end the one that no longer holds",
    ),
    Finding.PROVISIONAL_BESIDE: Meaning(
        "Provisional beside settled",
        "A provisional inscription (902) while another capacity of the sector is in force.",
        "remove the provisional line",
    ),
    Finding.PROVISIONAL_TOO_LONG: Meaning(
        "Provisional for too long",
        "A provisional inscription (902) that began more than {provisional_days} days before.",
        "make it definitive or remove it",
    ),
    Finding.WITHOUT_TYPE: Meaning(
        "Without institution type",
        "The line fits every type of its sector, and the sector has several.",
        "inscribe with the type that keeps the file",
    ),
    Finding.UNKNOWN_CODE: Meaning(
        "Unknown code",
        "Role or capacity is on no official list, nor the role in the rulebook.",
        "use the right code, or have the new one published",
    ),
    Finding.IMPROBABLE_AGE: Meaning(
        "Improbable age",
        "By the number the person would be older than 115, and no death is known.",
        "find out whether the person lives",
    ),
    Finding.UNCHANGED: Meaning(
        "Unchanged for long",
        "In force, and last changed more than {unchanged_years} years before.",
        "confirm that the file is active",
    ),
    Finding.EXPIRED: Meaning(
        "Expired long ago",
        "Ended more than {keep_years} years before, and still kept.",
        "remove it, unless it is still needed",
    ),
}


def meaning(finding: Finding, terms: Terms) -> Meaning:
    """Return a finding in words, with the terms that were used."""
    words = _MEANINGS[finding]
    return words._replace(what=words.what.format(**terms._asdict()))


def share(part: int, whole: int) -> str:
    """Return a share in words; what is there is never shown as nothing."""
    if not whole:
        return DASH
    if part and part / whole < 0.0001:
        return "< 0.01 %"
    return f"{100 * part / whole:.2f} %"


def cell_text(cell: str | int) -> str:
    """Return a cell of a sheet as it stands on a page."""
    return f"{cell:,}" if isinstance(cell, int) else cell
