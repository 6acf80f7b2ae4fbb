"""Which sealed files there are: a chain of manifests, and one catalog per quarter and kind.

A manifest is written once for each step of the sealer, and names the SHA-256 of the one before it.
Its own SHA-256 is recorded in the log (an entry of kind SEALED), so a signed checkpoint covers it.
A catalog is what the manifests up to one number add up to; it is derived, and made anew from them.
"""

import msgspec


class SealedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One file of the archive. Ranges of leaves and of time include the begin and not the end."""

    kind: str
    """``t``, ``p``, ``u``, ``k`` or ``r``; ``c`` for the requests carried over."""
    path: str
    """Below ``sealed/``, such as ``q=2026Q4/t/000000000000-000000065536.parquet``."""
    sha256: str
    bytes: int
    rows: int
    level: int = 0
    """How many times its rows were merged; a part of a run has the level of the run."""
    part: int = 0
    """Of its run, in the order of the sort; column ``b``."""
    parts: int = 1
    quarter: str
    key_id: str
    first_leaf: int
    end_leaf: int
    first_us: int
    """The earliest ``at_us`` in it."""
    end_us: int
    """Beyond the latest ``at_us`` in it."""
    min_key: str = ""
    """The least value of the first column it is sorted by: hexadecimal of bytes, text as it is."""
    max_key: str = ""
    range_root: str = ""
    """``t``: root of the tree over its leaves alone (RFC 6962), in hexadecimal."""
    schema_version: int = 1


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Up to where a slot is sealed."""

    file: int
    """Number of the write-ahead file."""
    frame: int
    """Last frame of it that is sealed."""
    next_record: int
    """Number of the first record of the slot that is not."""
    offset: int
    """Where in the file the next frame is, and its chain value so far: who asks the log reads on
    from there, and nothing twice."""
    crc: int
    is_last: bool
    """The frame ends its file."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the sealer: leaves that were sealed, or runs that were merged."""

    format: int = 1
    number: int
    """From 1 without a gap; its file is ``manifest/<number>.json``."""
    previous: str
    """SHA-256 of the manifest file before, in hexadecimal; empty for the first."""
    origin: str
    node: str
    made_at_us: int
    sealed_leaves: int
    """Every leaf below this index lies in a ``t`` file of this or an earlier manifest."""
    slots: dict[str, Cursor]
    """Of every slot that has sealed records."""
    added: tuple[SealedFile, ...]
    removed: tuple[str, ...] = ()
    """Paths of derived files that the added ones stand in for; never of a ``t`` file."""


class Catalog(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The files of one quarter and kind, as of a manifest, in the order of their leaves."""

    upto: int
    """Number of the manifest."""
    first_us: int | None = None
    """The earliest of them, so that nobody looks at thousands for it; older catalogs do not say."""
    end_us: int | None = None
    """The latest of them."""
    files: tuple[SealedFile, ...]


def catalog_of(upto: int, files: tuple[SealedFile, ...]) -> Catalog:
    """Return the catalog of files that are in order, as of a manifest."""
    return Catalog(
        upto=upto,
        first_us=min((file.first_us for file in files), default=None),
        end_us=max((file.end_us for file in files), default=None),
        files=files,
    )


class Carried(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An entry of an exchange that was not over when its leaf was sealed.

    A carry file is the MessagePack array of these, by seq. Its entries are in a ``t`` file already,
    and get their row in ``p`` and ``u`` with the step that seals the end of the exchange.
    """

    seq: int
    record: bytes
    """Canonical form."""
    slot: str
    number: int
    """Of the record in its slot: what follows it there may belong to the same exchange."""
