"""The chapters in which the directory is changed, and the control goes by it at once."""

from collections.abc import Iterator

import msgspec

from contrib.demo.cast import BANK, CENTRE, NIC, REGISTER, RVA, Chapter, Step
from ksz_router.codes import Code
from ksz_router.messages import Request
from ksz_router.sdk import directory, new_ticket

_OF_THE_REGISTER = "00901000202"
"""Program number."""


def kept(unknown_here: Request, replaced: Request, new: str) -> Iterator[Chapter]:
    """Yield the chapters.

    Args:
        unknown_here: Of the centre, about a person whom the source knows and the centre does not.
        replaced: Of the centre, about a person whom it, the RVA and the NIC know.
        new: A number that does not exist yet.
    """
    yield Chapter(
        "The directory is kept true",
        "Who knows whom is changed by the institutions themselves, or by what they send.\n"
        "Once a change is answered, every request is judged by it.",
        tuple(_keeping(unknown_here)),
    )
    yield Chapter(
        "What became of a number",
        "No line moves, and both numbers find the person. Who knows the person is told, once.",
        tuple(_numbering(replaced, new)),
    )


def _keeping(question: Request) -> Iterator[Step]:
    person = question.person
    assert person is not None

    def again() -> Request:
        return msgspec.structs.replace(question, ticket=new_ticket())

    yield Step(
        who=CENTRE, about="a person without a file here", request=question,
        expected=Code.PERSON_NOT_INTEGRATED,
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="the same, inscribed in capacity 2",
        request=directory.inscribe(again(), person, begin=20260101),
        expected=Code.ANSWERED_WITH_DATA, went_to=(BANK,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="asked about at once", request=again(),
        expected=Code.ANSWERED_WITH_DATA, went_to=(RVA,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="inscribed twice: the directory refuses",
        request=directory.inscribe(again(), person, begin=20260201),
        expected=Code.ANSWERED_WITHOUT_DATA, went_to=(BANK,),
    )  # fmt: skip
    everything = directory.Removal(what=directory.What.ALL)
    yield Step(
        who=CENTRE, about="the file was opened by mistake",
        request=directory.remove(again(), person, everything),
        expected=Code.ANSWERED_WITH_DATA, went_to=(BANK,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="asked about after that", request=again(),
        expected=Code.PERSON_NOT_INTEGRATED,
    )  # fmt: skip
    granted = msgspec.structs.replace(again(), service="LivingWageGranted", version=1)
    yield Step(
        who=CENTRE, about="a living wage: the message opens the file",
        request=msgspec.structs.replace(granted, begin=20260101, payload=b"a decision"),
        expected=Code.ANSWERED_WITH_DATA, went_to=(RVA,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="asked about once it is answered", request=again(),
        expected=Code.ANSWERED_WITH_DATA, went_to=(RVA,),
    )  # fmt: skip


def _numbering(question: Request, new: str) -> Iterator[Step]:
    person = question.person
    assert person is not None

    def said(number: str, event: directory.Event, by: str = "") -> Request:
        envelope = Request(
            id=0, service="", version=0, ticket=new_ticket(), application=_OF_THE_REGISTER,
            sector=0, type=0, capacity=0,
        )  # fmt: skip
        return directory.register(envelope, number, event, by=by)

    yield Step(
        who=REGISTER, about="a number that is new", request=said(new, directory.Event.NEW),
        expected=Code.ANSWERED_WITH_DATA, went_to=(BANK,),
    )  # fmt: skip
    yield Step(
        who=REGISTER, about="it replaces another one",
        request=said(person, directory.Event.REPLACE, new),
        expected=Code.ANSWERED_WITH_DATA, went_to=(BANK,), then_told=(RVA, NIC),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="asked about under the old number", request=question,
        expected=Code.PERSON_REPLACED, detail={"newSSIN": new},
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="and under the new one, with the file of before",
        request=msgspec.structs.replace(question, ticket=new_ticket(), person=new),
        expected=Code.ANSWERED_WITH_DATA, went_to=(RVA,),
    )  # fmt: skip
