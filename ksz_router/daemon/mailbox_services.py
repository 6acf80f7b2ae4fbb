"""The services of mailboxes: take a part, and say how far a mailbox is and what its lines came to.

``docs/directory-files.md`` is the specification. Whose mailboxes are told of is settled by the
control: each institution sees its own, in the role in which it sent them.
"""

import os
from collections.abc import Callable
from functools import partial

import msgspec
import trio

from ksz_router.daemon.directory_asked import MALFORMED, NO_ROLE, REFUSALS
from ksz_router.directory.mailbox import WHY, Fault, Mailbox, MailboxRefused, Part, Sender
from ksz_router.directory.mailboxes import Mailboxes, MailboxesUnusable
from ksz_router.limits import mailbox_part_bytes_max
from ksz_router.messages import Delivery, Outcome
from ksz_router.model import Role
from ksz_router.sdk.directory import VERSION, encode
from ksz_router.sdk.directory_files import ANSWERS, FILE, AnswersWanted, Receipt
from ksz_router.sdk.provider import Handler, Supply

_MISSING_MAX = 64
_UNUSABLE = "DIR-STORE"
"""Source code where a part could not be stored, which is not the sender's to mend."""

_parts = msgspec.msgpack.Decoder(Part)
_wanted = msgspec.msgpack.Decoder(AnswersWanted)
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class MailboxServices:
    """Answers deliveries of both services.

    Args:
        mailboxes: Of the directory.
        woken: Called when a mailbox is complete.
        wall_ms: Unix time in milliseconds.
    """

    def __init__(
        self, mailboxes: Mailboxes, woken: Callable[[], None], wall_ms: Callable[[], int]
    ) -> None:
        self._mailboxes = mailboxes
        self._woken = woken
        self._wall_ms = wall_ms

    def handlers(self) -> dict[tuple[str, int], Handler]:
        """By service name and version, for a ``Provider``."""
        return {
            (FILE, VERSION): partial(self._answer, self._take),
            (ANSWERS, VERSION): partial(self._answer, self._tell),
        }

    async def _answer(
        self, work: Callable[[Delivery, Role], Supply], delivery: Delivery
    ) -> Supply | None:
        if delivery.sector is None or delivery.type is None:
            return _plain_refusal(NO_ROLE)
        role = Role(delivery.sector, delivery.type)
        try:
            supply = await trio.to_thread.run_sync(work, delivery, role)
        except _UNDECODABLE:
            return _plain_refusal(MALFORMED)
        except (MailboxesUnusable, OSError):
            if delivery.repeat:
                return None  # the part may stand already: what came of it stays unknown
            return Supply(Outcome.FAILED, source_code=_UNUSABLE)
        if delivery.service == FILE:
            self._woken()
        return supply

    def _take(self, delivery: Delivery, role: Role) -> Supply:
        part = _parts.decode(delivery.payload)
        sender = Sender(delivery.requester, role, delivery.member or "")
        try:
            mailbox, repeated = self._mailboxes.receive(sender, part, self._wall_ms())
        except MailboxRefused as refused:
            return self._refusal(delivery.requester, part.number, refused.fault)
        if mailbox.fault:
            return self._refusal(delivery.requester, part.number, Fault(mailbox.fault), mailbox)
        return self._told(mailbox, repeated=repeated)

    def _tell(self, delivery: Delivery, role: Role) -> Supply:
        wanted = _wanted.decode(delivery.payload)
        number, kbo = wanted.number, delivery.requester
        mailbox = self._mailboxes.find(kbo, number) if number > 0 else None
        is_own = mailbox is not None and role == Role(mailbox.sector, mailbox.type)
        if mailbox is None or not is_own or mailbox.member != (delivery.member or ""):
            return self._refusal(kbo, number, Fault.FILE_UNKNOWN)
        if mailbox.fault:
            return self._refusal(kbo, number, Fault(mailbox.fault), mailbox)
        offset = min(max(wanted.offset, 0), mailbox.answer_bytes)
        size = min(mailbox_part_bytes_max, mailbox.answer_bytes - offset)
        data = b""
        file = self._mailboxes.answers_file(mailbox)
        if size and file.exists():  # answers are kept for some time only
            with file.open("rb") as stream:
                data = os.pread(stream.fileno(), size, offset)
        is_last = bool(mailbox.done_ms) and offset + len(data) == mailbox.answer_bytes
        return self._told(mailbox, offset=offset, data=data, is_last=is_last)

    def _told(
        self,
        mailbox: Mailbox,
        *,
        repeated: bool = False,
        offset: int = 0,
        data: bytes = b"",
        is_last: bool = False,
    ) -> Supply:
        receipt = Receipt(
            number=mailbox.number,
            state=mailbox.state.name.lower(),
            received_ms=mailbox.received_ms,
            complete_ms=mailbox.complete_ms,
            missing=tuple(mailbox.missing[:_MISSING_MAX]),
            gaps=tuple(self._mailboxes.gaps(mailbox.kbo)),
            repeated=repeated,
            lines=mailbox.lines,
            lines_done=mailbox.lines_done,
            applied=mailbox.applied,
            refused=mailbox.refused,
            offset=offset,
            data=data,
            is_last=is_last,
        )
        return Supply(Outcome.DATA, payload=encode(receipt))

    def _refusal(
        self, kbo: str, number: int, fault: Fault, mailbox: Mailbox | None = None
    ) -> Supply:
        receipt = Receipt(
            number=number,
            state=mailbox.state.name.lower() if mailbox is not None else "",
            gaps=tuple(self._mailboxes.gaps(kbo)),
            reason=fault.name,
            why=WHY[fault],
        )
        code = f"DIR-{int(fault)}"
        return Supply(Outcome.NO_DATA, payload=encode(receipt), source_code=code)


def _plain_refusal(name: str) -> Supply:
    code, why = REFUSALS[name]
    receipt = Receipt(number=0, reason=name, why=why)
    return Supply(Outcome.NO_DATA, payload=encode(receipt), source_code=code)
