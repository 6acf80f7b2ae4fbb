"""The official lists are whole, named, and answer what they must."""

import json
from importlib.resources import files

import pytest

from ksz_router import official
from ksz_router.codes import MEANINGS


def test_the_lists_have_the_size_of_their_sources() -> None:
    """A row lost in an edit of the data shows here."""
    assert len(official.sectors()) == 209
    assert len(official.capacities()) == 106
    assert len(official.status_codes()) == 93
    assert len(official.services()) == 48


@pytest.mark.parametrize("name", ["sectors", "capacities", "status_codes", "services"])
def test_every_file_names_its_source(name: str) -> None:
    """A code list without origin is hearsay."""
    table = json.loads(files("ksz_router").joinpath("data", f"{name}.json").read_bytes())
    assert table["source"]
    assert table["about"]


def test_roles_are_pairs_that_exist() -> None:
    """A type is one of its own sector."""
    assert official.is_role(17, 1)
    assert official.is_role(0, 0)
    assert not official.is_role(17, 2)
    assert not official.is_role(4, 0)
    assert not official.is_role(-1, 1)


def test_a_capacity_means_something_in_its_sector_only() -> None:
    """10 is an employee with the RSZ and nothing with a public centre for social welfare."""
    assert official.is_capacity(12, 10)
    assert not official.is_capacity(17, 10)
    assert official.capacity_label(17, 2) == "Leefloon"
    assert official.capacity_label(17, 10) == ""


def test_the_inscriptions_are_in_every_sector_and_999_in_none() -> None:
    """Form I605: 0 definitive, 902 provisional; 999 marks a replaced number."""
    for sector in (0, 17, 40):
        assert official.is_capacity(sector, 0)
        assert official.is_capacity(sector, 902)
        assert not official.is_capacity(sector, 999)
    assert official.capacity_label(40, 902) == "Voorlopige inschrijving"


def test_the_codes_that_travel_are_official_codes() -> None:
    """What the router puts beside its own code is a code the network knows."""
    used = {meaning.official for meaning in MEANINGS.values()} - {""}
    assert used <= official.status_codes().keys()
