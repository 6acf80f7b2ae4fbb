"""The privacy log: what was asked, by whom, on whom, under which rule, and what came of it.

``docs/privacylog-format.md`` is the specification. ``entry``, ``frame`` and ``keys`` are the
format; ``writer`` and ``recovery`` are the write path; ``query`` answers; ``verify`` shares the
format with the others and nothing else. Agreement, article 7, 5° b.
"""


class PrivacyLogError(Exception):
    """Something about the privacy log; the message names a place, never a person."""
