"""``docs/protocol.md`` says what the code does: its tables are read and compared."""

import re
import types
import typing
from enum import IntEnum
from pathlib import Path

import msgspec
import pytest

from ksz_router import limits
from ksz_router.codes import MEANINGS, Action, Code, Stage
from ksz_router.messages import Item, Outcome, RecipientStatus
from ksz_router.model import Kind
from ksz_router.tls import ALPN
from ksz_router.wire import VERSION, Side, Speaker, State
from ksz_router.wire.states import MAY_SEND
from tests.test_wire_vectors import CONVERSATIONS, INVALID, KINDS, VALID

DOCUMENT = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text(encoding="utf-8")
Row = list[str]
NOTHING = "\N{EN DASH}"


def section(title: str) -> str:
    """Return the text under a heading, up to the next heading."""
    _, _, rest = DOCUMENT.partition(f"# {title}\n")
    assert rest, f"no section {title}"
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def tables(text: str) -> list[list[Row]]:
    """Return the tables of a text, each as its rows, heads first."""
    found: list[list[Row]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[rows[0], *rows[2:]] for rows in found if rows]


def test_the_table_of_the_order_is_the_table_of_the_code() -> None:
    """Who may send what in which state."""
    (head, *rows), *_ = tables(section("Order"))
    states = [State[name.upper()] for name in head[1:]]
    written = {
        (Side[row[0].upper()], state): set(cell.split(", ")) - {NOTHING}
        for row in rows
        for state, cell in zip(states, row[1:], strict=True)
    }

    assert written == {key: {kind.__name__ for kind in kinds} for key, kinds in MAY_SEND.items()}


@pytest.mark.parametrize("name", KINDS)
def test_every_element_of_a_message_is_written_down(name: str) -> None:
    """Position, name, type, whether it may be missing, and the default."""
    kind = KINDS[name]
    tag = kind.__struct_config__.tag
    (head, *rows), *_ = tables(section(f"{name} ({tag})"))

    assert head[:4] == ["#", "name", "type", "default"]
    assert_written(rows, kind, first=1)


def test_a_recipient_is_written_down() -> None:
    """It stands inside an Answer and has no tag."""
    (_, *rows) = tables(section("Answer (17)"))[1]
    assert_written(rows, RecipientStatus, first=0)


def test_an_item_of_an_envelope_is_written_down() -> None:
    """It is what an envelope holds, and has no tag."""
    (_, *rows) = tables(section("Envelope (20)"))[1]
    assert_written(rows, Item, first=0)


def assert_written(rows: list[Row], kind: type[msgspec.Struct], *, first: int) -> None:
    """Compare the rows of a message with the fields of its struct."""
    hints = typing.get_type_hints(kind)
    assert [(int(row[0]), row[1]) for row in rows] == list(
        enumerate(kind.__struct_fields__, start=first)
    )
    for row, field in zip(rows, msgspec.structs.fields(kind), strict=True):
        assert type_of(hints[field.name]) == plain_type(row[2]), field.name
        default = NOTHING if field.required else shown_default(field)
        assert row[3] == default, field.name


def shown_default(field: msgspec.structs.FieldInfo) -> str:
    """What the document says where a field may be missing."""
    if field.default is None:
        return "nil"
    if field.default is False or field.default == 0:
        return str(field.default).lower()
    assert field.default in ("", b"", ()) or field.default_factory is dict, field.name
    return "empty"


def plain_type(written: str) -> str:
    """What a type of the document is in MessagePack."""
    return re.sub(
        r"\b(INSZ|KBO|program|u16|u32|u64|day)\b",
        lambda found: "integer" if found[0][0] in "ud" else "text",
        written,
    )


def type_of(hint: object) -> str:
    """What a field of a struct is in MessagePack, in the document's words."""
    names: dict[object, str] = {int: "integer", str: "text", bytes: "bytes", bool: "boolean"}
    if hint in names:
        return names[hint]
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return "integer"
    if hint is RecipientStatus:
        return "recipient"
    if hint is msgspec.Raw:
        return "item"
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return f"[{type_of(inner[0])}]"
    if typing.get_origin(hint) is dict:
        return f"{{{type_of(inner[0])}: {type_of(inner[1])}}}"
    assert isinstance(hint, types.UnionType), hint
    return f"{type_of(inner[0])} or nil"


def test_the_table_of_codes_is_the_registry() -> None:
    """Row by row. On a difference, the left side is what the document should say."""
    (_, *rows), *_ = tables(section("Codes"))
    registry = [
        [
            str(int(code)), f"`{code.name}`", code.stage.name, meaning.official or NOTHING,
            meaning.status, meaning.action.name, meaning.text,
        ]
        for code, meaning in MEANINGS.items()
    ]  # fmt: skip

    assert sorted(registry, key=lambda row: int(row[0])) == rows


def test_stages_actions_kinds_speakers_and_outcomes_are_written_down() -> None:
    """Every number of the protocol has its word in the document."""
    stages, actions, details = tables(section("What an answer says"))
    assert [(row[0], int(row[1])) for row in stages[1:]] == [(n.name, n.value) for n in Stage]
    assert [(row[0], int(row[1])) for row in actions[1:]] == [(n.name, n.value) for n in Action]
    assert [row[0].strip("`") for row in details[1:]] == [
        "field", "newSSIN", "deceaseDate", "retry", "payloadDigest", "dataBegin", "dataEnd",
        "integration", "limit",
    ]  # fmt: skip
    kinds, *_ = tables(section("What a request asks"))
    assert [row[0].upper() for row in kinds[1:]] == [kind.name for kind in Kind]
    assert [(n.name, n.value) for n in Speaker] == [("REQUESTER", 1), ("ROUTER", 2)]
    assert "1 a requester, 2 a router" in section("Hello (1)")
    outcomes = ", ".join(f"{n.value} {n.name.replace('_', ' ').lower()}" for n in Outcome)
    assert outcomes in section("Reply (19)")


def test_the_table_of_bounds_is_the_code() -> None:
    """A number in the document is the number that holds."""
    (_, *rows), *_ = tables(section("Bounds"))
    for name, value in rows:
        assert getattr(limits, name.strip("`")) == float(value), name


def test_every_code_that_is_named_exists_under_the_number_given() -> None:
    """A word in capitals in the text is a code, a status, a stage or an action."""
    known = {code.name for code in Code} | {meaning.status for meaning in MEANINGS.values()}
    known |= {stage.name for stage in Stage} | {action.name for action in Action}
    for name, number in re.findall(r"`([A-Z][A-Z_]+)`(?: \((\d+)\))?", DOCUMENT):
        assert name in known, name
        if number:
            assert Code[name] == int(number)


def test_every_code_of_a_broken_peer_has_a_vector() -> None:
    """What the engine ends a connection with is shown in bytes, too."""
    (_, *rows), *_ = tables(section("Broken peers"))
    ends = {int(n) for row in rows for n in re.findall(r"^ends with `\w+` \((\d+)\)", row[1])}
    shell = {Code.HELLO_LATE, Code.PEER_SILENT, Code.PEER_TOO_SLOW, Code.CORRELATION_REUSED}
    shell |= {Code.CERTIFICATE_REFUSED, Code.CERTIFICATE_REVOKED, Code.REVOCATIONS_OUT_OF_DATE}

    assert ends - shell == {row["code"] for row in INVALID}


def test_the_worked_example_is_a_vector() -> None:
    """Its bytes are those of the first conversation, element by element."""
    blocks = re.findall(r"```hex\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    frames = ["".join(re.sub(r"#.*", "", block).split()) for block in blocks]
    talk = next(t for t in CONVERSATIONS if t["name"] == "one exchange, seen by the requester")

    start, greeted, asked, answered, left = talk["steps"]
    assert frames[:4] == [start["sends"], greeted["hex"], asked["sends"], answered["hex"]]
    assert frames[4:] == [row["hex"] for row in VALID if "example of its section" in row["name"]]
    assert "`00 00 00 04 93 07 01 a0`" in DOCUMENT
    assert left["hex"] == "00000004930701a0"


def test_names_and_links_of_the_document_hold() -> None:
    """The names outside of tables, and the links of the contents."""
    assert f"`{ALPN}`" in section("Transport")
    assert f"# The protocol, version {VERSION}\n" in DOCUMENT
    titles = re.findall(r"^## (.+)$", DOCUMENT, flags=re.MULTILINE)
    links = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-"): title for title in titles}
    assert set(re.findall(r"\(#([^)]+)\)", DOCUMENT)) == set(links)


def test_every_vector_names_a_section_that_exists() -> None:
    """The origin of a vector leads somewhere."""
    titles = re.findall(r"^#+ (.+?)(?: \(\d+\))?$", DOCUMENT, flags=re.MULTILINE)
    for row in [*VALID, *INVALID, *CONVERSATIONS]:
        named = re.match(r"sections? ([\w ]+?)(?: and ([\w ]+))?(?:[;,].*)?$", row["origin"])
        assert named is not None, row["origin"]
        assert all(title in titles for title in named.groups() if title)
