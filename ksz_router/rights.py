"""Access rights: what one user or application may do for its institution.

A part of its own with an interface of its own, since institutions manage the rights of their users
themselves (agreement, article 7, 4° b). The rows of version 0 come with the rulebook's generation.
"""

from hashlib import blake2b

from ksz_router.identifiers import Kbo
from ksz_router.model import AccessRight
from ksz_router.rulebook.snapshot import Snapshot

_USER_KEY_BYTES = 16


def user_key(kbo: str, insz: str) -> str:
    """Return the name under which a rulebook knows a user: BLAKE2b-128 over KBO and INSZ, in hex.

    It keeps an INSZ out of text that people read and share. It is a pseudonym, not a secret:
    who guesses the INSZ can confirm the guess.
    """
    digest = blake2b(f"{kbo}:{insz}".encode(), digest_size=_USER_KEY_BYTES, person=b"ksz-user-key")
    return digest.hexdigest()


class Rights:
    """The access-right table at one version, as long as its snapshot is open."""

    version = 0
    """Rows that came with the generation, which names them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._rows = snapshot.rights

    def find(self, kbo: Kbo, user: str | None, application: str | None) -> tuple[AccessRight, ...]:
        """Return the rows of the user where one is named, else of the application."""
        # Both are a peer's text, not yet judged: what cannot be a key costs no look-up.
        if user is not None:
            return self._rows(kbo, f"u{user_key(kbo, user)}") if _is_short(user) else ()
        if application is not None and _is_short(application):
            return self._rows(kbo, f"a{application}")
        return ()


def _is_short(text: str) -> bool:
    return len(text) == 11 and text.isascii()
