"""The configuration: what a file may say, what a wrong one is answered, and the file we ship."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from ksz_router.config import LIVE, Config, ConfigError, load, merge

SHIPPED = Path(__file__).parents[1] / "config" / "router.toml"
DEFAULTS: dict[str, dict[str, object]] = msgspec.to_builtins(Config())
FIELDS = [(section, field) for section, fields in DEFAULTS.items() for field in fields]
NUMBERS = [
    (section, field)
    for section, field in FIELDS
    if not isinstance(DEFAULTS[section][field], str | bool)
]
UNITS = {
    "processes", "number", "connections", "bytes", "hours", "tickets", "requests", "seconds",
    "failures", "days",
}  # fmt: skip


def written(folder: Path, text: str) -> Path:
    file = folder / "router.toml"
    file.write_text(text, encoding="utf-8")
    return file


def comment_above(section: str, field: str) -> str:
    """The comment that stands right above a key of the shipped file; empty if there is none."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    row = lines.index(f"[{section}]")
    while not lines[row].startswith(f"{field} = "):
        row += 1
    comment: list[str] = []
    while lines[row - 1].startswith("# "):
        row -= 1
        comment.insert(0, lines[row].removeprefix("# "))
    return " ".join(comment)


def test_the_shipped_file_states_every_default() -> None:
    """Every section and field of the struct is in the file, with its default, and no other."""
    assert tomllib.loads(SHIPPED.read_text(encoding="utf-8")) == DEFAULTS


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_every_field_of_the_shipped_file_is_explained(section: str, field: str) -> None:
    """A sentence stands above each key; for a number it names the unit."""
    comment = comment_above(section, field)
    assert comment.endswith(".")
    if (section, field) in NUMBERS:
        assert UNITS.intersection(comment.lower().replace(",", " ").split())


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    """Nothing is mandatory; only relative paths are made absolute."""
    config = load(written(tmp_path, ""))

    assert config.windows == Config().windows
    assert config.tables.directory == Config().tables.directory
    assert config.tls.certificate == str(tmp_path / "tls/router.crt")
    assert config.tls.revocations == ""


def test_the_shipped_file_loads() -> None:
    """What we hand out passes its own checks."""
    assert load(SHIPPED).windows == Config().windows


@pytest.mark.parametrize("text", ["[listen]\nprot = 7443", "[listeners]\nport = 7443", "debug = 1"])
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, text: str) -> None:
    """A misspelt key does not silently leave a default in force."""
    key = text.rpartition("\n")[2].partition(" ")[0] if "listeners" not in text else "listeners"
    with pytest.raises(ConfigError, match=key) as caught:
        load(written(tmp_path, text))
    assert str(tmp_path / "router.toml") in str(caught.value)


@pytest.mark.parametrize(("section", "field"), NUMBERS)
@pytest.mark.parametrize("value", [-1, 10**12])
def test_a_number_out_of_range_names_file_key_and_range(
    tmp_path: Path, section: str, field: str, value: int
) -> None:
    """Every number has a lower and an upper bound, and the message says which."""
    file = written(tmp_path, f"[{section}]\n{field} = {value}")
    with pytest.raises(ConfigError, match=r"must be from .* to ") as caught:
        load(file)
    assert f"{file}: {section}.{field} = {value}" in str(caught.value)


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_a_value_of_another_type_names_file_and_key(
    tmp_path: Path, section: str, field: str
) -> None:
    """Text where a number belongs, or a number where text belongs, is refused."""
    wrong = "[]" if (section, field) in NUMBERS else "1"
    file = written(tmp_path, f"[{section}]\n{field} = {wrong}")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(file) in str(caught.value)
    assert f"$.{section}.{field}" in str(caught.value)


def test_windows_out_of_order_are_refused(tmp_path: Path) -> None:
    """A connection may not fill an institution's window, nor that the router's."""
    with pytest.raises(ConfigError, match="connection <= institution <= router must hold"):
        load(written(tmp_path, "[windows]\nconnection = 200\ninstitution = 100"))


def test_what_became_of_a_change_is_kept_as_long_as_its_ticket(tmp_path: Path) -> None:
    """Else a retry that the ledger still lets through would be made a second time."""
    file = tmp_path / "router.toml"
    file.write_text("[ledger]\nwindow_hours = 48\n[directory]\nkeep_days = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no change is made twice"):
        load(file)


@pytest.mark.parametrize("name", ["", "with space", "a" * 33, "routér", "a/b", "---"])
def test_a_name_that_cannot_stand_in_a_file_name_is_refused(tmp_path: Path, name: str) -> None:
    """The node's name becomes part of file names and of signatures."""
    with pytest.raises(ConfigError, match=r"node\.name: 1 to 32 ASCII letters"):
        load(written(tmp_path, f'[node]\nname = "{name}"'))


def test_a_relative_path_counts_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory of the process does not matter, and an absolute path stays."""
    (tmp_path / "elsewhere").mkdir()
    written(tmp_path, '[tables]\nrulebook = "rules"\ndirectory = "/srv/directory"')
    monkeypatch.chdir(tmp_path)
    from_here = load(Path("router.toml"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    from_there = load(Path("../router.toml"))

    assert from_here.tables.rulebook == str(tmp_path / "rules")
    assert Path(from_there.tables.rulebook).resolve() == tmp_path / "rules"
    assert from_here.tables.directory == "/srv/directory"


def test_a_secret_may_come_as_a_credential_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``$CREDENTIALS_DIRECTORY`` at the head of a path is the folder that systemd made."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/ksz-router.service")
    file = written(tmp_path, '[tls]\nkey = "$CREDENTIALS_DIRECTORY/router.key"')

    assert load(file).tls.key == "/run/credentials/ksz-router.service/router.key"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read"), (b"[node", "is not TOML"), (b"\xff\xfe", "is not TOML")],
)
def test_a_file_that_is_none_says_why(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """A missing, broken or binary file is one sentence with its name, not a traceback."""
    file = tmp_path / "router.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_every_live_key_is_a_key_of_the_configuration() -> None:
    """And each is said to be live where an operator reads it, next to the key that is not."""
    assert {(section, field) for section, fields in LIVE.items() for field in fields} < set(FIELDS)
    text = (SHIPPED.parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    told = {
        (section, field)
        for section, fields in re.findall(r"^\| `\[(\w+)\]` \| (.+) \|$", text, re.MULTILINE)
        for field in re.findall(r"`(\w+)`", fields)
    }
    assert told == {(section, field) for section, fields in LIVE.items() for field in fields}


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_a_change_is_taken_over_or_named_as_one_that_needs_a_restart(
    section: str, field: str
) -> None:
    """Key by key, and never both; what is not named in ``LIVE`` stays as it runs."""
    running = Config()
    old = getattr(running, section)
    value = getattr(old, field)
    new = "another" if isinstance(value, str) else value + 1
    read = msgspec.structs.replace(
        running, **{section: msgspec.structs.replace(old, **{field: new})}
    )
    if field in LIVE.get(section, ()):
        assert merge(running, read) == (read, ())
    else:
        assert merge(running, read) == (running, (f"{section}.{field}",))
    assert merge(running, running) == (running, ())
