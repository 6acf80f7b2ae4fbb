"""Access rights: found for the user where one is named, else for the application, and bounded."""

from collections.abc import Iterator

import pytest

from ksz_router.model import AccessRight
from ksz_router.rights import Rights, user_key
from ksz_router.rulebook.snapshot import Snapshot
from tests import worlds as w


@pytest.fixture(scope="module")
def rights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rights]:
    world = w.make_world(tmp_path_factory.mktemp("world"))
    snapshot = Snapshot.open(world.store, world.name)
    yield Rights(snapshot)
    snapshot.close()


def services(found: tuple[AccessRight, ...]) -> list[set[str]]:
    return sorted((set(right.services) for right in found), key=sorted)


def test_all_rows_of_a_user_are_found(rights: Rights) -> None:
    """The control takes the one that allows; the ended one is found too."""
    found = rights.find(w.CENTRE, w.USER_B, None)
    assert services(found) == [{"Handi"}, {"HealthCareInsurance"}]
    assert sorted(right.level for right in found) == [0, 3]


def test_a_named_user_hides_the_application(rights: Rights) -> None:
    """A user without rights does not get those of the program."""
    changes = {
        f"directory.{verb}"
        for verb in (
            "inscribe",
            "adjust",
            "remove",
            "lines",
            "file",
            "file.answer",
        )
    }
    program = [{"UnemploymentData", "A036"}, changes]
    assert services(rights.find(w.CENTRE, None, w.PROGRAM)) == program
    assert rights.find(w.CENTRE, "00010199747", w.PROGRAM) == ()
    assert services(rights.find(w.CENTRE, w.USER_A, w.PROGRAM)) == [set()]


def test_a_right_is_of_one_institution(rights: Rights) -> None:
    """The same person elsewhere has other rights or none."""
    assert rights.find(w.RSZ, w.USER_A, None) == ()
    assert [right.kbo for right in rights.find(w.NIC, w.USER_A, None)] == [w.NIC]


def test_nobody_named_finds_nothing(rights: Rights) -> None:
    """Neither user nor application: no right."""
    assert rights.find(w.CENTRE, None, None) == ()


@pytest.mark.parametrize(
    "text", ["", "u", "x" * 1_000_000, "\ud800" * 11, "٨٥٠٧٣٠٩٩٧٣٤", "\0" * 11]
)
def test_what_is_no_number_finds_nothing(rights: Rights, text: str) -> None:
    """Peers' text before it is judged: long, not ASCII, not even encodable."""
    assert rights.find(w.CENTRE, text, None) == ()
    assert rights.find(w.CENTRE, None, text) == ()


def test_a_user_key_is_fixed_and_hides_the_number() -> None:
    """Rows written today must be found in ten years: the vector holds the computation still."""
    key = user_key("0999016460", "85073099734")
    assert key == "8a504b0e42e77932dd81c93801986144"
    assert "85073099734" not in key
    assert key != user_key("0999017846", "85073099734")


def test_a_program_cannot_be_asked_for_as_a_user_key(rights: Rights) -> None:
    """Users and programs have keys of their own kind: no text of one is a key of the other."""
    assert rights.find(w.CENTRE, w.PROGRAM, None) == ()
