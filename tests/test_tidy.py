"""The shape of the code base, held by a test: who may import what, how long, and one road."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ksz_router"
TREES = [PACKAGE, ROOT / "tests", ROOT / "bench", ROOT / "contrib"]
FILES = sorted(path for tree in TREES for path in tree.rglob("*.py"))

MODULE_LINES_MAX = 300
TEST_LINES_MAX = 450  # tables and strategies of tests read from top to bottom
FUNCTION_LINES_MAX = 60

# From the inside out. A part may import from itself and from the ranks before it,
# never from another part of its own rank.
RANKS = [
    {"identifiers", "codes", "limits", "official"},
    {"keepers"},
    {"model"},
    {"messages", "days", "persons"},
    {"decision"},
    {"routing"},
    {"wire"},
    {"ranges"},
    {"config"},
    {"rulebook"},
    {"rights"},
    {"directory"},
    {"ledger"},
    {"privacylog"},
    {"replay"},
    {"tls"},
    {"revocations"},
    {"credentials"},
    {"link"},
    {"poller", "dial"},
    {"sdk"},
    {"daemon"},
    {"report"},
    {"cli"},
    {"__main__"},
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}
SHELL = {"daemon", "sdk", "cli"}

# Libraries that do something to the world, and the only parts or modules that may touch them.
HOMES: dict[str, set[str]] = {
    "trio": {"link", "dial", "poller"} | SHELL,
    "lmdb": {"rulebook", "rights", "directory", "ledger"},
    "structlog": {"daemon"},
    "prometheus_client": {"daemon"},
    "logging": {"sdk", "daemon.oplog"},  # a library leaves it to its user where it goes
    "ssl": {"tls", "link", "dial", "daemon", "sdk"},
    "socket": {"link", "dial"} | SHELL,
    "select": {"poller", "daemon.recorder", "daemon.doorstep"},
    "cryptography": {"privacylog", "rulebook", "revocations", "credentials"} | SHELL,
    "secrets": {"privacylog"} | SHELL,
    "time": SHELL,
    "random": {"daemon", "sdk", "directory.synthesise"},
    "signal": {"daemon", "cli"},
    "subprocess": {"daemon", "cli"},
    "pyarrow": {"privacylog.archive", "directory.bulk"},
    "duckdb": {"privacylog.archive"},
    "numpy": {"privacylog.archive", "report", "directory.bulk"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "tqdm": {"cli"},
    # One event loop, one way to start a process, one wire format: these have no home.
    "asyncio": set(),
    "selectors": set(),
    "multiprocessing": set(),
    "pickle": set(),
}

# Calls that read the clock without importing ``time``; below the shell the caller passes it in.
CLOCK = {"now", "today", "utcnow"}

# A folder or file with such a name has not yet found out what it is.
NO_NOUN = {"utils", "common", "helpers", "base", "core", "services"}

# Law 1, one road: the only modules that may name these. ``RULES`` stays where it is. A replay asks
# the same control what it would have said; nothing is forwarded or answered by what it hears.
ROAD = {
    "decide": {"daemon.judging", "replay.again"},
    "explain": {"cli.explain"},
    "RULES": set[str](),
}

# A verifier that shares code with the writer repeats its mistakes.
_DERIVES = {
    f"privacylog.archive.{module}"
    for module in (
        "columns", "exchange_lines", "exchange_rows", "institutions", "merge", "ordering",
        "rollup", "segment",
    )
}  # fmt: skip
_WRITES_THE_ARCHIVE = {
    "privacylog.writer", "privacylog.recovery", "privacylog.tree.sequence",
    "privacylog.tree.order_writer", "privacylog.tree.intake", "privacylog.tree.anchor",
    "privacylog.archive.seal", "privacylog.archive.step_files", "privacylog.archive.segment",
    "privacylog.archive.columns", "privacylog.archive.chain", "privacylog.archive.merge",
    "privacylog.archive.leaves", "privacylog.archive.ordered", "privacylog.archive.sweep",
}  # fmt: skip
APART = {
    "privacylog.verify": {"privacylog.writer", "privacylog.recovery"},
    "privacylog.archive.canon": {"privacylog.archive.columns", "privacylog.entry"},
    "privacylog.archive.verify_derived": _DERIVES,
    "privacylog.archive.derived_model": _DERIVES,
    "privacylog.archive.verify_chain": _WRITES_THE_ARCHIVE,
    "privacylog.archive.verify_fast": _WRITES_THE_ARCHIVE,
    "privacylog.archive.verify_full": _WRITES_THE_ARCHIVE,
    "privacylog.archive.verify_order": _WRITES_THE_ARCHIVE,
    "privacylog.archive.verify_tree": _WRITES_THE_ARCHIVE,
}

# Folders of one developer's machine; in pieces, so that this file passes its own test.
MACHINE = "(?:wo" + "rk|ro" + "ot|ho" + "me|t" + "mp)"


def dotted(path: Path) -> str:
    """The name of a module inside the package, without ``ksz_router``: ``daemon.exchange``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def within(module: str, homes: set[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def imports(tree: ast.Module) -> set[str]:
    """Every dotted name that a module imports, in any function or at the top."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def import_faults(module: str, name: str) -> list[str]:
    """What is wrong with ``module`` importing ``name``."""
    library, _, rest = name.partition(".")
    if not library:
        return [f"{name}: imports are absolute"]
    if library != "ksz_router":
        homes = HOMES.get(library)
        return [] if homes is None or within(module, homes) else [f"{library} is not for {module}"]
    part, _, inner = rest.partition(".")
    own = module.partition(".")[0]
    faults = [f"{module} imports {name}" for far in APART.get(module, ()) if within(rest, {far})]
    if part == "decision" and own != "decision":
        if inner.partition(".")[0] in {"", "*", "person", "requester"}:
            faults.append(f"{name}: take single names from decision, so that the road shows")
        elif module not in ROAD.get(inner, {module}):
            faults.append(f"{inner} is not for {module}")
    if part in {own, ""} or part.startswith("__version"):
        return faults
    if part not in RANK:
        return [*faults, f"{part} has no rank: give it one"]
    if own == "__init__" or RANK[part] >= RANK[own]:
        faults.append(f"{own} comes before {part} and may not import it")
    return faults


def size_faults(tree: ast.Module, source: str, lines_max: int = MODULE_LINES_MAX) -> list[str]:
    """What is too long, and whether the module says what it is for."""
    lines = len(source.splitlines())
    faults = [f"{lines} lines in one module"] if lines > lines_max else []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.body[0].lineno
            if length > FUNCTION_LINES_MAX:
                faults.append(f"{node.name}: {length} lines in one function")
    if source and not ast.get_docstring(tree):
        faults.append("say in one line what this module is for: it has no docstring")
    return faults


def called(tree: ast.Module) -> set[str]:
    """The last name of everything that is called as an attribute, with the name before it."""
    return {
        f"{ast.unparse(node.func.value).rpartition('.')[2]}.{node.func.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }


def faults_of(module: str, source: str) -> list[str]:
    """Everything that is wrong with one module of the package."""
    tree = ast.parse(source)
    part = module.partition(".")[0]
    if part not in RANK and part != "__init__":
        return [f"{part} has no rank: give it one"]
    faults = [fault for name in sorted(imports(tree)) for fault in import_faults(module, name)]
    if part not in SHELL | {"report", "__main__"}:
        clocks = sorted(name for name in called(tree) if name.rpartition(".")[2] in CLOCK)
        faults += [f"{name}() reads the clock" for name in clocks]
    faults += [f"{name} is no noun" for name in NO_NOUN.intersection(module.split("."))]
    return faults + size_faults(tree, source)


@pytest.mark.parametrize("module", sorted(map(dotted, PACKAGE.rglob("*.py"))))
def test_module_keeps_to_its_place(module: str) -> None:
    """Imports follow the ranks, libraries have their homes, and nothing is too long."""
    path = PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert faults_of(module, path.read_text(encoding="utf-8")) == []


def test_one_module_decides() -> None:
    """Law 1: online and batch alike, one place decides; and a replay, which moves nothing."""
    naming = {
        dotted(path)
        for path in PACKAGE.rglob("*.py")
        if "ksz_router.decision.decide" in imports(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert naming == ROAD["decide"]


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("decision.person", "import lmdb", "lmdb is not for"),
        ("daemon.server", "import asyncio", "asyncio is not for"),
        ("directory.loader", "import random", "random is not for"),
        ("directory.loader", "from ksz_router import privacylog", "may not import"),
        ("sdk.client", "from ksz_router.daemon.oplog import event", "may not import"),
        ("days", "from ksz_router.messages import Request", "may not import"),
        ("model", "def f():\n    import ksz_router.config", "may not import"),
        ("wire.frames", "from . import events", "absolute"),
        ("daemon.batch", "from ksz_router.decision import decide", "decide is not for"),
        ("cli.send", "from ksz_router.decision import explain", "explain is not for"),
        ("daemon.exchange", "from ksz_router.decision import RULES", "RULES is not for"),
        ("daemon.server", "from ksz_router import decision", "single names"),
        ("daemon.server", "import ksz_router.decision", "single names"),
        ("daemon.server", "from ksz_router.decision.person import outage", "single names"),
        ("privacylog.verify", "from ksz_router.privacylog.writer import Writer", "imports"),
        (
            "privacylog.archive.verify_full",
            "from ksz_router.privacylog.archive.seal import Sealer",
            "imports",
        ),
        ("rulebook.check", "import datetime\nx = datetime.date.today()", "reads the clock"),
        ("daemon.utils", "'''Things.'''", "no noun"),
        ("orphan", "'''New.'''", "no rank"),
        ("daemon.server", "from ksz_router.orphan import x", "no rank"),
        ("codes", "x = 1", "no docstring"),
        ("codes", "'''Long.'''" + "\n" * 301, "lines in one module"),
        ("codes", "def f():\n" + "    x = 1\n" * 62, "lines in one function"),
    ],
)
def test_a_planted_fault_is_seen(module: str, source: str, fault: str) -> None:
    """The rules above are not vacuous: each catches what it was written for."""
    assert any(fault in found for found in faults_of(module, source))


def test_what_is_allowed_is_not_seen_as_a_fault() -> None:
    """The rules leave alone what the design asks for."""
    judging = "'''Life.'''\nimport trio\nfrom ksz_router.decision import Facts, decide"
    assert faults_of("daemon.judging", judging) == []
    assert faults_of("cli.explain", "'''V.'''\nfrom ksz_router.decision import explain") == []
    assert (
        faults_of("rulebook.snapshot", "'''V.'''\nfrom ksz_router.decision.case import Facts") == []
    )
    assert faults_of("directory.synthesise", "'''V.'''\nimport random") == []
    assert faults_of("cli", "'''V.'''\nfrom ksz_router import __version__") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_of_a_readable_size_and_fit_for_any_machine(path: Path) -> None:
    """Tests, benches and the demo keep the same size; nobody sleeps or knows a machine's paths."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    is_test = ROOT / "tests" in path.parents
    assert size_faults(tree, source, TEST_LINES_MAX if is_test else MODULE_LINES_MAX) == []
    if is_test:
        assert "time.sleep" not in called(tree) | imports(tree), "wait for the event, not the clock"
    assert re.findall(rf"/{MACHINE}/[\w.]+", source) == []
