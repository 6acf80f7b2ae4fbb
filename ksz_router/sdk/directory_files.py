"""Send changes of the directory as files: mailboxes, in parts, and the verdicts of their lines.

    content = mailbox_of(head, rows)
    for asked in parts_of(envelope, head.number, content):
        receipt = receipt_of(await client.ask(asked))

``docs/directory-files.md`` is the specification. Nothing in here shows a person in its ``repr``.
"""

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from ksz_router.directory.mailbox import Part
from ksz_router.directory.mailbox_form import COLUMNS, Head
from ksz_router.limits import mailbox_part_bytes_max
from ksz_router.messages import Answer, Request
from ksz_router.sdk.directory import VERSION, encode

FILE = "directory.file"
ANSWERS = "directory.file.answer"

_TICKET_DIGEST_CHARS = 12


class AnswersWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of ``directory.file.answer``."""

    number: int
    offset: int = 0
    """From which byte of the answer file on."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Payload of every answer of both: how far a mailbox is."""

    number: int
    state: str = ""
    """``receiving``, ``waiting``, ``done`` or ``refused``; empty where there is no such mailbox."""
    received_ms: int = 0
    """When its first part was stored, Unix milliseconds."""
    complete_ms: int = 0
    """When it was found complete, or refused; 0 before."""
    missing: tuple[int, ...] = ()
    """Parts that are not here, 64 at most."""
    gaps: tuple[tuple[int, int], ...] = ()
    """Numbers that this sender left out, first and last of each range; 16 at most."""
    repeated: bool = False
    """The part was here before."""
    lines: int = 0
    """Changes, once it is complete."""
    lines_done: int = 0
    applied: int = 0
    refused: int = 0
    offset: int = 0
    data: bytes = b""
    """Of the answer file, from ``offset`` on."""
    is_last: bool = False
    """Nothing will come behind ``data``."""
    reason: str = ""
    """Name of the rule that is broken; empty where none is."""
    why: str = ""
    """The rule in words."""


_receipt = msgspec.msgpack.Decoder(Receipt)


def receipt_of(answer: Answer) -> Receipt | None:
    """Read what the directory said; None where the router answered without it, or was repeated.

    Raises:
        msgspec.ValidationError: the payload is none of the directory's.
    """
    return _receipt.decode(answer.payload) if answer.payload else None


def mailbox_of(head: Head, rows: Iterable[str]) -> bytes:
    """Return the file of a mailbox.

    Args:
        head: The identification.
        rows: The changes, each a line without its end.
    """
    lines = [head.text, ",".join(COLUMNS), *rows]
    return "\n".join((*lines, f"end,{len(lines) - 2}", "")).encode("ascii")


def parts_of(
    envelope: Request, number: int, content: bytes, part_bytes: int = mailbox_part_bytes_max
) -> Iterator[Request]:
    """Make the requests that send a mailbox, one for each part, in any order to be asked.

    The tickets follow from number, content and part: who sends again after a loss of everything
    sends retries, and no part is taken twice.

    Args:
        envelope: Who sends: application, role, capacity; all else is put in.
        number: Of the mailbox.
        content: The file.
        part_bytes: Of each part but the last.
    """
    digest = hashlib.sha256(content)
    name = digest.hexdigest()[:_TICKET_DIGEST_CHARS]
    for begin in range(0, len(content), part_bytes):
        part = begin // part_bytes + 1
        payload = Part(
            number=number,
            file_bytes=len(content),
            sha256=digest.digest(),
            part_bytes=part_bytes,
            part=part,
            data=content[begin : begin + part_bytes],
        )
        yield msgspec.structs.replace(
            envelope,
            service=FILE,
            version=VERSION,
            person=None,
            ticket=f"{number}-{part}-{name}",
            payload=encode(payload),
        )


def answers(envelope: Request, number: int, offset: int = 0) -> Request:
    """Make a request for the verdicts of a mailbox, from a byte of the answer file on."""
    payload = encode(AnswersWanted(number=number, offset=offset))
    return msgspec.structs.replace(
        envelope, service=ANSWERS, version=VERSION, person=None, payload=payload
    )
