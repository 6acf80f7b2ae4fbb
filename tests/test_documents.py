"""What stands around the code: documents, locks, licence and targets agree with it."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from ksz_router import __version__
from ksz_router.cli import VERBS
from ksz_router.codes import MEANINGS, Action, Code, Stage
from ksz_router.report.directory_findings import Finding

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def own_files(*patterns: str) -> list[Path]:
    """Files of the project that match, without what is made from it (``.venv``, caches)."""
    found = {path for pattern in patterns for path in ROOT.rglob(pattern) if path.is_file()}
    hidden = {
        path for path in found if any(p.startswith(".") for p in path.relative_to(ROOT).parts)
    }
    return sorted(found - hidden)


MARKDOWN = own_files("*.md")
TEXTS = [
    *own_files("*.md", "*.toml", "*.txt", "*.service", "*.socket", "*.conf", "Makefile", "*.json"),
    ROOT / ".ci" / "run",
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """A document without its code blocks."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors that a reader's browser makes of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def targets() -> dict[str, str]:
    """Every target of the Makefile that shows in its help, with what it is said to do."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z-]+):.*## (.+)$", text, re.MULTILINE))


def locked(name: str) -> dict[str, set[str]]:
    """The packages of a lock as ``name==version``, each with its hashes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {line.split()[0]: set(re.findall(r"--hash=sha256:[0-9a-f]{64}", line)) for line in lines}


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_every_internal_link_resolves(path: Path) -> None:
    """A link names a file of the project and, after #, a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target) or path.name == "template.md":
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_no_document_knows_the_machine_it_was_written_on(path: Path) -> None:
    """No path of a developer's machine, in pieces here so that this file is none."""
    machine = "(?:wo" + "rk|ro" + "ot|ho" + "me|t" + "mp)"
    assert re.findall(rf"(?<![\w.]){'/'}{machine}/[\w.]+|file:/+\w+", path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_every_table_is_whole(path: Path) -> None:
    """Rows without a head above them are shown as text, and a cell too many is not shown."""
    for table in re.findall(r"(?:^\|.*\n)+", prose(path), re.MULTILINE):
        rows = [re.sub(r"`[^`]*`|\\\|", "", row).count("|") for row in table.splitlines()]
        assert re.fullmatch(r"\|[ :|-]+\|", table.splitlines()[1]), table[:80]
        assert len(set(rows)) == 1, table[:80]


@pytest.mark.parametrize("name", ["protocol", "operations", "runbook", "sdk", "rulebook"])
def test_every_code_that_a_document_names_exists(name: str) -> None:
    """A code that is gone or misspelt would be looked for in vain."""
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    statuses = {meaning.status for meaning in MEANINGS.values()}
    names = (Code, Action, Stage, Finding)
    known = {member.name for each in names for member in each} | statuses
    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", text)) <= known


def test_the_index_lists_every_decision_with_its_status() -> None:
    """Numbers run from 0001 without a gap, and the status in the index is that of the page."""
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| .+ \| (\w+)", index, re.MULTILINE)
    assert [row[0] for row in rows] == [f"{n:04d}" for n in range(1, len(RECORDS) + 1)]
    assert [row[1] for row in rows] == [path.name for path in RECORDS]
    for (number, file, status), path in zip(rows, RECORDS, strict=True):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}: "), file
        assert f"\nStatus: {status}" in text, file


@pytest.mark.parametrize("path", RECORDS, ids=name_of)
def test_a_decision_keeps_to_the_template_and_to_one_page(path: Path) -> None:
    """The same headings in the same order, at most sixty lines."""
    heading = re.compile(r"^## (.+)$", re.MULTILINE)
    template = heading.findall((DECISIONS / "template.md").read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")
    assert heading.findall(text) == template
    assert len(text.splitlines()) <= 60


def test_the_readme_shows_how_to_try_it() -> None:
    """The two commands that a newcomer runs first."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
    assert len(text.splitlines()) <= 250


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_every_target_that_a_document_names_exists(path: Path) -> None:
    """What a reader copies into a shell works."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?^```|`[^`\n]+`", text, re.MULTILINE | re.DOTALL)
    made = re.compile(r"^`?make (?:[A-Z]+=\S+ )*([a-z][a-z -]*)", re.MULTILINE)
    named = {word for block in blocks for words in made.findall(block) for word in words.split()}
    assert named <= targets().keys()


def test_help_lists_every_target() -> None:
    """A target is public, phony and explained, or it is the environment."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert set(phony.split()) == targets().keys() | {"environment"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_module(verb: str) -> None:
    """The help of the command promises nothing that is not there."""
    module = importlib.import_module(f"ksz_router.cli.{verb.replace('-', '_')}")
    assert callable(module.add)
    assert callable(module.run)


def test_the_version_is_stated_once_in_meaning() -> None:
    """The package, the project file and the changelog agree."""
    assert PROJECT["project"]["version"] == __version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.findall(r"^## (.+)$", changelog, re.MULTILINE)[0]
    assert first == "Unreleased" or first.startswith(f"{__version__} ")


def test_the_licence_is_the_whole_text_of_the_declared_one() -> None:
    """EUPL 1.2 has fifteen articles and an appendix."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "EUPL-1.2"
    assert "EUROPEAN UNION PUBLIC LICENCE v. 1.2" in text
    articles = re.findall(r"^(\d+)\. [A-Z]", text, re.MULTILINE)
    assert articles == [str(n) for n in range(1, 16)]
    assert "new versions of this Licence or updated versions of the Appendix" in " ".join(
        text.split()
    )
    assert text.rstrip().endswith("EUPL version.")


@pytest.mark.parametrize("name", ["run.txt", "audit.txt", "dev.txt"])
def test_a_lock_names_every_package_by_version_and_hash_and_no_index(name: str) -> None:
    """What is installed does not depend on who answers for a package name."""
    packages = locked(name)
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.!+-]+", package) for package in packages)
    assert all(packages.values())
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    assert not re.search(r"https?:|--index|--extra-index|--find-links|--trusted", text)


def test_the_locks_hold_what_the_project_asks_for() -> None:
    """Each dependency is locked; what developers test with is what servers run."""
    run, audit, dev = (locked(f"{name}.txt") for name in ("run", "audit", "dev"))
    assert run.items() <= audit.items() <= dev.items()
    for lock, wanted in (
        (run, PROJECT["project"]["dependencies"]),
        (audit, PROJECT["project"]["optional-dependencies"]["audit"]),
        (dev, PROJECT["dependency-groups"]["dev"]),
    ):
        names = {package.partition("==")[0] for package in lock}
        assert {re.split(r"[<>=!~ \[]", want)[0] for want in wanted} <= names
