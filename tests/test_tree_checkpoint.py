"""Checkpoints and notes: what is signed is what C2SP says, and nothing else is accepted."""

import base64
import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from ksz_router.cli import main
from ksz_router.privacylog.tree.checkpoint import (
    Checkpoint,
    CheckpointKeysError,
    CheckpointRefused,
    Signer,
    make_keys,
    parse_checkpoint,
    verify_checkpoint,
)
from ksz_router.privacylog.tree.merkle import EMPTY_ROOT
from ksz_router.privacylog.tree.note import (
    ED25519,
    Note,
    NoteRefused,
    Signature,
    VerifierKey,
    encode_note,
    is_name,
    parse_note,
    parse_vkey,
    read_vkeys,
)

ORIGIN = "log.example/router-a"
ROOT = bytes(range(32))
AT_S = 1_795_300_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "checkpoint"
    make_keys(folder, ORIGIN)
    return folder


@pytest.fixture(scope="module")
def vkeys(keys: Path) -> tuple[VerifierKey, ...]:
    return read_vkeys(keys / "vkeys")


@pytest.fixture(scope="module")
def note(keys: Path) -> bytes:
    return Signer(keys, ORIGIN).sign(12, ROOT, AT_S)


def signature_lines(note: bytes) -> list[bytes]:
    return note.partition(b"\n\n")[2].splitlines(keepends=True)


def test_the_bytes_of_a_checkpoint_are_those_of_the_specifications(
    note: bytes, vkeys: tuple[VerifierKey, ...]
) -> None:
    """Put together here by hand: tlog-checkpoint, signed-note 0x01, tlog-cosignature 0x06."""
    text = f"{ORIGIN}\n12\n{base64.b64encode(ROOT).decode()}\n".encode()
    assert note.startswith(text + b"\n")
    first, second = signature_lines(note)
    prefix = f"— {ORIGIN} ".encode()
    ed25519, ml_dsa = (base64.b64decode(line[len(prefix) : -1]) for line in (first, second))
    assert first.startswith(prefix)
    assert second.startswith(prefix)
    for data, kind, key in zip((ed25519, ml_dsa), (1, 6), vkeys, strict=True):
        named = f"{ORIGIN}\n".encode() + bytes([kind]) + key.public
        assert data[:4] == hashlib.sha256(named).digest()[:4]
    Ed25519PublicKey.from_public_bytes(vkeys[0].public).verify(ed25519[4:], text)
    assert int.from_bytes(ml_dsa[4:12], "big") == AT_S
    name = bytes([len(ORIGIN)]) + ORIGIN.encode()
    message = (
        b"subtree/v1\n\x00" + name + AT_S.to_bytes(8, "big")
        + name + bytes(8) + (12).to_bytes(8, "big") + ROOT
    )  # fmt: skip
    MLDSA44PublicKey.from_public_bytes(vkeys[1].public).verify(ml_dsa[12:], message)
    assert len(ml_dsa) == 4 + 8 + 2420


def test_a_note_of_another_implementation_is_verified() -> None:
    """The example of C2SP signed-note: its verifier key, its text, its signature."""
    key = parse_vkey("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    note = parse_note(
        "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppz"
        "i2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n".encode()
    )
    assert (key.type, note.signatures[0].id) == (ED25519, key.id)
    public = Ed25519PublicKey.from_public_bytes(key.public)
    public.verify(note.signatures[0].data, note.text.encode())
    with pytest.raises(InvalidSignature):
        public.verify(note.signatures[0].data, note.text.encode() + b"\n")


def test_a_checkpoint_that_is_right_is_accepted(
    keys: Path, note: bytes, vkeys: tuple[VerifierKey, ...]
) -> None:
    """It says what was signed, and when; the empty tree has the root of nothing."""
    assert parse_checkpoint(note, vkeys) == Checkpoint(ORIGIN, 12, ROOT)
    vouched = verify_checkpoint(note, vkeys)[1]
    assert [(each.key, each.at_s) for each in vouched] == [(vkeys[0], None), (vkeys[1], AT_S)]
    empty = Signer(keys, ORIGIN).sign(0, EMPTY_ROOT, AT_S)
    assert parse_checkpoint(empty, vkeys).size == 0
    with pytest.raises(CheckpointRefused, match="empty tree"):
        parse_checkpoint(Signer(keys, ORIGIN).sign(0, ROOT, AT_S), vkeys)


def test_signatures_by_unknown_keys_are_passed_over(
    note: bytes, vkeys: tuple[VerifierKey, ...]
) -> None:
    """A witness nobody knows, a known name with another id, a known id under another name."""
    text, _, lines = note.partition(b"\n\n")
    known = vkeys[0]
    strange = [
        Signature("witness.example/w", b"abcd", bytes(72)),
        Signature(known.name, b"\0\0\0\1", bytes(64)),
        Signature("other.example", known.id, bytes(64)),
    ]
    mixed = text + b"\n\n" + "".join(f"{line}\n" for line in strange).encode() + lines
    assert parse_checkpoint(mixed, vkeys).size == 12
    with pytest.raises(CheckpointRefused, match="not signed with a known Ed25519"):
        parse_checkpoint(encode_note(text.decode() + "\n", strange), vkeys)


def test_a_wrong_signature_by_a_known_key_spoils_the_note(
    note: bytes, vkeys: tuple[VerifierKey, ...]
) -> None:
    """Though a right one stands beside it; a witness whom the reader knows counts as well."""
    text, _, lines = note.partition(b"\n\n")
    wrong = f"{Signature(ORIGIN, vkeys[0].id, bytes(64))}\n".encode()
    for mixed in (wrong + lines, lines + wrong):
        with pytest.raises(CheckpointRefused, match=r"Ed25519 signature .* is not right"):
            parse_checkpoint(text + b"\n\n" + mixed, vkeys)
    witness = Ed25519PrivateKey.generate()
    key = VerifierKey("witness.example/w", ED25519, witness.public_key().public_bytes_raw())
    right = Signature(key.name, key.id, witness.sign(text + b"\n"))
    by_witness = note + f"{right}\n".encode()
    assert len(verify_checkpoint(by_witness, (*vkeys, key))[1]) == 3
    alone = encode_note(text.decode() + "\n", [right])
    with pytest.raises(CheckpointRefused, match="known Ed25519 key of its log"):
        parse_checkpoint(alone, (vkeys[0], key))
    with pytest.raises(CheckpointRefused, match="is not right"):
        parse_checkpoint(note + f"{right._replace(data=bytes(64))}\n".encode(), (*vkeys, key))


def test_both_signatures_are_asked_for_where_both_keys_are_known(
    note: bytes, vkeys: tuple[VerifierKey, ...]
) -> None:
    """Or who breaks Ed25519 would leave the other away. Who has only one key asks for that."""
    text, _, lines = note.partition(b"\n\n")
    first, second = lines.splitlines(keepends=True)
    only_first, only_second = text + b"\n\n" + first, text + b"\n\n" + second
    with pytest.raises(CheckpointRefused, match="ML-DSA-44 key"):
        parse_checkpoint(only_first, vkeys)
    with pytest.raises(CheckpointRefused, match="Ed25519 key"):
        parse_checkpoint(only_second, vkeys)
    assert parse_checkpoint(only_first, vkeys[:1]).size == 12
    with pytest.raises(CheckpointRefused, match="Ed25519 key"):
        parse_checkpoint(note, vkeys[1:])
    renamed = VerifierKey("other.example", ED25519, vkeys[0].public)
    with pytest.raises(CheckpointRefused):
        parse_checkpoint(note, (renamed,))


def test_no_byte_of_a_checkpoint_can_be_changed(
    note: bytes, vkeys: tuple[VerifierKey, ...]
) -> None:
    """Each bit of the text, and of the first signature; of the long one every 37th byte."""
    text_bytes = len(note.partition(b"\n\n")[0])
    first_bytes = text_bytes + 2 + len(signature_lines(note)[0])
    for at in [*range(first_bytes), *range(first_bytes, len(note), 37)]:
        for bit in range(8) if at < text_bytes else (at % 8,):
            changed = note[:at] + bytes([note[at] ^ 1 << bit]) + note[at + 1 :]
            with pytest.raises(CheckpointRefused):
                parse_checkpoint(changed, vkeys)
    for cut in range(0, len(note), 11):
        with pytest.raises(CheckpointRefused):
            parse_checkpoint(note[:cut], vkeys)


@pytest.mark.parametrize(
    "text",
    [
        "x\n12\n",
        f"x\n012\n{base64.b64encode(ROOT).decode()}\n",
        f"x\n-1\n{base64.b64encode(ROOT).decode()}\n",
        f"x\n\uff11\n{base64.b64encode(ROOT).decode()}\n",
        f"x\n{2**63}\n{base64.b64encode(ROOT).decode()}\n",
        f"x\n{'9' * 5000}\n{base64.b64encode(ROOT).decode()}\n",
        f"x\n1\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"x\n1\n{base64.b64encode(ROOT).decode().rstrip('=')}\n",
        f"x\n1\n {base64.b64encode(ROOT).decode()}\n",
        f"\n1\n{base64.b64encode(ROOT).decode()}\n",
        f"x\n1\n{base64.b64encode(ROOT).decode()}\n\nmore\n",
    ],
)
def test_a_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    """Signed or not."""
    key = Ed25519PrivateKey.generate()
    vkey = VerifierKey("x", ED25519, key.public_key().public_bytes_raw())
    signature = Signature("x", vkey.id, key.sign(text.encode()))
    with pytest.raises(CheckpointRefused):
        parse_checkpoint(encode_note(text, [signature]), (vkey,))


def test_lines_behind_the_root_are_signed_and_ignored() -> None:
    """C2SP allows extension lines; the log writes none."""
    key = Ed25519PrivateKey.generate()
    vkey = VerifierKey("x", ED25519, key.public_key().public_bytes_raw())
    text = f"x\n1\n{base64.b64encode(ROOT).decode()}\nextended\n"
    signature = Signature("x", vkey.id, key.sign(text.encode()))
    assert parse_checkpoint(encode_note(text, [signature]), (vkey,)).size == 1


NOT_NOTES: dict[str, bytes] = {
    "nothing": b"",
    "no signature": b"text\n",
    "an empty signature part": b"text\n\n",
    "not UTF-8": b"\xff\n\n\xe2\x80\x94 a YWJjZGU=\n",
    "a control character": b"te\rxt\n\n\xe2\x80\x94 a YWJjZGU=\n",
    "no newline at the end": "text\n\n— a YWJjZGU=".encode(),
    "another dash": b"text\n\n- a YWJjZGU=\n",
    "no name": "text\n\n—  YWJjZGU=\n".encode(),
    "a plus in the name": "text\n\n— a+b YWJjZGU=\n".encode(),
    "no base64": "text\n\n— a YWJ?ZGU=\n".encode(),
    "base64 in another form": "text\n\n— a YWJjZGV=\n".encode(),
    "an id without signature": "text\n\n— a YWJjZA==\n".encode(),
    "too many signatures": b"text\n\n" + "— a YWJjZGU=\n".encode() * 65,
    "too long": b"x" * 300_000 + "\n\n— a YWJjZGU=\n".encode(),
}


@pytest.mark.parametrize("name", NOT_NOTES)
def test_what_is_no_note_is_refused(name: str) -> None:
    """With a typed error, and as a checkpoint too."""
    with pytest.raises(NoteRefused):
        parse_note(NOT_NOTES[name])
    with pytest.raises(CheckpointRefused):
        parse_checkpoint(NOT_NOTES[name], ())


def test_a_note_is_put_together_and_taken_apart() -> None:
    """The text may hold empty lines: the last one of the note ends it."""
    signature = Signature("a.example", b"abcd", b"data")
    assert parse_note(encode_note("one\n\ntwo\n", [signature])) == Note(
        "one\n\ntwo\n", (signature,)
    )
    assert is_name("log.example/a")
    assert not any(map(is_name, ("", "a b", "a+b", "a\u00a0b", "a\nb", "\ud800", "é" * 128)))


def spoil_id(text: str) -> str:
    name, _, rest = text.partition("+")
    return f"{name}+{int(rest[:8], 16) ^ 1:08x}{rest[8:]}"


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_id,
        lambda text: text.replace("+", " ", 1),
        lambda text: text.replace("log", "lag", 1),
        lambda text: text[:-4],
        lambda text: text.upper(),
    ],
)
def test_a_line_that_is_no_verifier_key_is_refused(
    tmp_path: Path, vkeys: tuple[VerifierKey, ...], spoil: Callable[[str], str]
) -> None:
    """The message names file and line."""
    file = tmp_path / "vkeys"
    file.write_text(f"# the log\n\n{vkeys[0]}\n{spoil(str(vkeys[1]))}\n", encoding="utf-8")
    with pytest.raises(NoteRefused, match="vkeys:4: "):
        read_vkeys(file)


def test_a_file_of_verifier_keys_may_hold_others(
    tmp_path: Path, vkeys: tuple[VerifierKey, ...]
) -> None:
    """Of a kind that is not known here; a file with nothing else is refused."""
    file = tmp_path / "vkeys"
    other = VerifierKey("other.example", 0x04, bytes(32))
    file.write_text(f"{other}\n{vkeys[1]}\n", encoding="utf-8")
    assert read_vkeys(file) == (vkeys[1],)
    file.write_text(f"{other}\n", encoding="utf-8")
    with pytest.raises(NoteRefused, match="no verifier key"):
        read_vkeys(file)
    with pytest.raises(NoteRefused, match="cannot be read"):
        read_vkeys(tmp_path / "none")


def test_checkpoint_keys_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Private ones for their owner only, none printed, none replaced."""
    folder = tmp_path / "k"
    words = ["keys", "checkpoint", "--folder", str(folder), "--origin"]
    assert main([*words, ORIGIN]) == 0
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert modes == {"ed25519.pem": 0o600, "mldsa44.pem": 0o600, "vkeys": 0o644}
    assert "PRIVATE" not in capsys.readouterr().out
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert main([*words, "other.example"]) == 1
    (folder / "ed25519.pem").unlink()
    assert main([*words, ORIGIN]) == 1
    assert "never replaced" in capsys.readouterr().err
    assert all(file.read_bytes() == before[file] for file in folder.iterdir())
    assert main(["keys", "checkpoint", "--folder", str(tmp_path / "x"), "--origin", "a b"]) == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda keys: (keys / "mldsa44.pem").unlink(), "keys checkpoint --folder"),
        (lambda keys: (keys / "vkeys").unlink(), "vkeys: cannot be read"),
        (lambda keys: (keys / "ed25519.pem").chmod(0o640), "chmod 600"),
        (lambda keys: (keys / "ed25519.pem").write_bytes(b"x"), "is not a private key"),
        (
            lambda keys: (keys / "ed25519.pem").write_bytes((keys / "mldsa44.pem").read_bytes()),
            "of another kind",
        ),
    ],
)
def test_keys_that_cannot_be_used_are_named(
    tmp_path: Path, spoil: Callable[[Path], object], what: str
) -> None:
    """With what to do about it."""
    make_keys(tmp_path / "k", ORIGIN)
    spoil(tmp_path / "k")
    with pytest.raises(CheckpointKeysError, match=what):
        Signer(tmp_path / "k", ORIGIN)


def test_a_log_is_not_signed_under_another_name(keys: Path) -> None:
    """The name of a log is for ever: another one in the configuration is refused."""
    with pytest.raises(CheckpointKeysError, match=r"archive\.origin"):
        Signer(keys, "log.example/router-b")
