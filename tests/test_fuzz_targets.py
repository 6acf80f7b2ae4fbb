"""Every target of the fuzzer over its seeds and over what it once found."""

from pathlib import Path

import pytest

from contrib.fuzz import targets

FILES_MAX, FOLDER_BYTES_MAX = 64, 200 * 1024


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_decoder_keeps_its_contract_over_its_corpus(name: str) -> None:
    """A value that means the same again, or an error of its own kind; nothing else is raised."""
    target = targets.load(name)
    inputs = [*target.seeds(), *(file.read_bytes() for file in corpus(name)), b""]
    assert len(inputs) > 2
    for data in inputs:
        target.one_input(data)


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_corpus_is_small(name: str) -> None:
    """It is kept for what it shows, not for its size."""
    files = corpus(name)
    assert len(files) <= FILES_MAX
    assert sum(file.stat().st_size for file in files) <= FOLDER_BYTES_MAX


def test_every_corpus_has_its_target() -> None:
    """None is left behind where a target was renamed."""
    assert {folder.name for folder in targets.CORPUS.iterdir()} <= set(targets.NAMES)


def corpus(name: str) -> list[Path]:
    return sorted((targets.CORPUS / name).glob("*"))
