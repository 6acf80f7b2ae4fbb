"""The chapter in which an institution changes the directory, and the control goes by it at once."""

from collections.abc import Iterator

import msgspec

from contrib.demo.cast import BANK, CENTRE, RVA, Step
from ksz_router.codes import Code
from ksz_router.messages import Request
from ksz_router.sdk import directory, new_ticket


def keeping(question: Request) -> Iterator[Step]:
    """Yield the steps.

    Args:
        question: Of the centre, about a person whom the source knows and the centre does not.
    """
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
