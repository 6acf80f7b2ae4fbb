"""A small ready-made world: the example rulebook, compiled, signed and active in a folder.

The names below are the example's institutions, users and program; its README says which of them
meets which refusal. ``LINES`` is what the directory must hold on ``PERSON`` for every service of
the example to find its source.
"""

import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ksz_router.identifiers import Kbo
from ksz_router.messages import Request
from ksz_router.model import ANY_TYPE, OPEN, Day, Line, NumberStatus
from ksz_router.persons import Person, pack_lines
from ksz_router.rulebook.activation import activate
from ksz_router.rulebook.compile import build

EXAMPLE = Path(__file__).parents[1] / "config" / "rulebook-example"
TODAY: Day = 20261122
"""A day on which the example is as its README says."""
NOW_MS = 1_795_300_000_000
"""A moment of that day."""

RVA = Kbo("0999010126")
NIC = Kbo("0999010819")
HANDICAP = Kbo("0999011512")
RSZ = Kbo("0999012205")
REGISTER = Kbo("0999012995")
POD_MI = Kbo("0999013688")
RSVZ = Kbo("0999014381")
PENSIONS = Kbo("0999015074")
DISEASES = Kbo("0999015767")
CENTRE = Kbo("0999016460")
MEMBER = Kbo("0999017153")
MANAGER = Kbo("0999017846")
DEPARTMENT = Kbo("0999018539")
FUND = Kbo("0999019232")
STOPPED = Kbo("0999019925")
BANK = Kbo("0999020618")

USER_A, USER_B = "85073099734", "85073099833"
PROGRAM, MUTATIONS_PROGRAM = "00901000101", "00901000202"
PERSON = "00010199776"

LINES = (
    Line(0, 0, 0, 0, 20000101, OPEN),
    Line(5, ANY_TYPE, 20, 0, 20200101, OPEN),
    Line(6, ANY_TYPE, 10, 0, 20200101, OPEN),
    Line(11, ANY_TYPE, 1, 0, 20200101, OPEN),
    Line(12, ANY_TYPE, 10, 0, 20200101, OPEN),
    Line(15, ANY_TYPE, 2, 0, 20200101, OPEN),
    Line(16, ANY_TYPE, 1, 1, 20200101, OPEN),
    Line(17, 1, 2, 2, 20200101, OPEN),
    Line(18, ANY_TYPE, 1, 0, 20200101, OPEN),
)
"""Lines under which everyone in the example knows ``PERSON``, to this day."""

KNOWN = Person(NumberStatus.ACTIVE, PERSON, NumberStatus.ACTIVE, pack_lines(LINES))
"""What a directory that holds ``LINES`` says of ``PERSON``."""


class World(NamedTuple):
    """A store with one active generation, and the keys that signed it."""

    store: Path
    name: str
    text: Path
    """The rulebook's text: change it and build again for another generation."""
    signer_key: Path
    signer_pub: Path


def make_world(
    tmp_path: Path,
    endpoints: Mapping[str, tuple[str, int]] | None = None,
    more: Mapping[str, str] | None = None,
) -> World:
    """Build, sign and activate the example in ``tmp_path``, sources at the given host and port.

    ``more`` are further files of the rulebook's text, and what is in them.
    """
    text = tmp_path / "rulebook-text"
    shutil.copytree(EXAMPLE, text)
    for name, words in (more or {}).items():
        (text / name).write_text(words, encoding="utf-8")
    sources = text / "institutions" / "sources.toml"
    content = sources.read_text(encoding="utf-8")
    for kbo, (host, port) in (endpoints or {}).items():
        pattern = rf'host = "[^"]*"\nport = \d+\nuri = "urn:kbo:{kbo}"'
        content, count = re.subn(
            pattern, f'host = "{host}"\nport = {port}\nuri = "urn:kbo:{kbo}"', content
        )
        assert count == 1, f"{kbo} has no endpoint in the example"
    sources.write_text(content, encoding="utf-8")
    key, public = write_signer(tmp_path)
    store = tmp_path / "rulebook"
    manifest, _ = build(text, store, now_ns=time.time_ns())
    activate(store, manifest.name, key)
    return World(store, manifest.name, text, key, public)


def write_signer(folder: Path, name: str = "rulebook-signer") -> tuple[Path, Path]:
    """Write a new signer's key pair and return the private and the public file."""
    private = Ed25519PrivateKey.generate()
    key, public = folder / f"{name}.key", folder / f"{name}.pub"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    public.write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return key, public


def uri(kbo: str) -> str:
    """Return the SAN URI of an institution of the example."""
    return f"urn:kbo:{kbo}"


def ask(**changes: Any) -> Request:
    """Return a request of the centre that passes where the directory holds ``LINES``."""
    fields: dict[str, Any] = {
        "id": 1,
        "service": "UnemploymentData",
        "version": 3,
        "ticket": "ticket-1",
        "user": USER_A,
        "sector": 17,
        "type": 1,
        "capacity": 2,
        "person": PERSON,
    }
    return Request(**(fields | changes))
