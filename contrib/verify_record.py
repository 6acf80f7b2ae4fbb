"""Check offline that a record stands in a privacy log: a .tlog-proof file and verifier keys.

Written from docs/privacylog-format.md alone: it needs Python 3.11 and the ``openssl`` command (3.0
or later), which verifies Ed25519, and nothing of the router. ML-DSA-44, unknown to many openssl, is
verified here.

    python3 verify_record.py exchange.tlog-proof vkeys
"""

import argparse
import base64
import subprocess
import sys
import tempfile
import uuid
from datetime import UTC, datetime
from hashlib import sha256, shake_128, shake_256
from pathlib import Path
from typing import Any

FIELDS = [
    "version", "kind", "at_us", "exchange", "code", "stage", "service", "service_version",
    "requester", "acting", "final_client", "sector", "type", "capacity", "legal_framework", "user",
    "application", "means", "level", "ticket", "person", "asked", "enterprise", "begin", "end",
    "destinations", "generation", "rights_version", "directory_version", "grant", "basis", "line",
    "violations", "request_bytes", "answer_bytes", "digest", "router_us", "source_us", "counts",
    "reader", "purpose", "attempt", "first", "content",
]  # fmt: skip
KINDS = ["", "REQUEST", "OUTCOME", "SUMMARY", "READING", "FURTHER", "RECIPIENT", "SEALED"]
ED25519, ML_DSA_44 = 1, 6
SPKI_ED25519 = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: before the 32 bytes of a key
Keys = dict[tuple[str, bytes], tuple[int, bytes]]
"""Kind and key by name and id."""


def hashed(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def from_base64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError(f"not in the one base64 form: {text[:40]}")
    return data


def read_proof(data: bytes) -> tuple[int, list[bytes], bytes, bytes, bytes]:
    """Return index, hashes, salt, record and the bytes of the checkpoint."""
    head, found, note = data.partition(b"\n\n")
    lines = head.decode("ascii", "replace").split("\n")
    if not found or len(lines) < 3 or lines[0] != "c2sp.org/tlog-proof@v1":
        raise ValueError("not a proof")
    held, index = from_base64(lines[1].removeprefix("extra ")), int(lines[2][6:])
    if lines[2] != f"index {index}" or index < 0:
        raise ValueError("the index is not a number")
    hashes = [from_base64(line) for line in lines[3:]]
    if len(held) <= 16 or any(len(each) != 32 for each in hashes):
        raise ValueError("the proof holds no record, or a line is no hash")
    return index, hashes, held[:16], held[16:], note


def read_vkeys(text: str) -> Keys:
    keys = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("#"):
            continue
        name, id_, encoded = line.split("+", 2)
        data = from_base64(encoded)
        if hashed(name.encode(), b"\n", data)[:4].hex() != id_:
            raise ValueError(f"the verifier key {name} has another id than its own")
        keys[name, bytes.fromhex(id_)] = (data[0], data[1:])
    return keys


def read_checkpoint(note: bytes, keys: Keys, openssl: str) -> tuple[str, int, bytes, list[str]]:
    """Return origin, size, root, and who signed, once every signature by a known key is right."""
    text, found, lines = note.decode().rpartition("\n\n")
    fields = text.split("\n")
    if not found or len(fields) < 3 or not lines.endswith("\n"):
        raise ValueError("no checkpoint")
    origin, size, root = fields[0], int(fields[1]), from_base64(fields[2])
    if str(size) != fields[1] or size < 0 or len(root) != 32:
        raise ValueError("no checkpoint")
    signed, told = set(), []
    for line in lines[:-1].split("\n"):
        dash, name, encoded = line.split(" ")
        data = from_base64(encoded)
        if dash != "\N{EM DASH}" or len(data) < 5:
            raise ValueError("a line of the checkpoint is no signature")
        kind, key = keys.get((name, data[:4]), (0, b""))
        if kind == ED25519:
            check_ed25519(key, data[4:], (text + "\n").encode(), openssl)
            told.append(f"signed by {name} with Ed25519")
        elif kind == ML_DSA_44:
            at = data[4:12]
            message = b"subtree/v1\n\0" + bytes([len(name.encode())]) + name.encode() + at
            message += bytes([len(origin.encode())]) + origin.encode() + bytes(8)
            message += size.to_bytes(8, "big") + root
            if not ml_dsa_44_verifies(key, message, data[12:]):
                raise ValueError(f"the ML-DSA-44 signature of {name} is not right")
            signed_at = datetime.fromtimestamp(int.from_bytes(at, "big"), UTC)
            told.append(f"signed by {name} with ML-DSA-44 at {signed_at}")
        if kind and name == origin:
            signed.add(kind)
    asked = {kind for (name, _), (kind, _) in keys.items() if name == origin}
    if (asked | {ED25519}) & {ED25519, ML_DSA_44} - signed:
        raise ValueError(f"the log {origin} did not sign with each of the kinds of key known of it")
    return origin, size, root, told


def check_ed25519(key: bytes, signature: bytes, text: bytes, openssl: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in {"key": SPKI_ED25519 + key, "text": text, "sig": signature}.items():
            Path(folder, name).write_bytes(data)
        command = [openssl, "pkeyutl", "-verify", "-rawin", "-in", "text", "-sigfile", "sig"]
        command += ["-pubin", "-keyform", "DER", "-inkey", "key"]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if done.returncode != 0:
        raise ValueError("the Ed25519 signature is not right, says openssl")


def root_from(leaf: bytes, index: int, size: int, hashes: list[bytes]) -> bytes:
    """Return the root that a proof leads to (RFC 9162, section 2.1.3.2)."""
    if index >= size:
        raise ValueError("the leaf is not in the tree")
    node, last = index, size - 1
    for each in hashes:
        if last == 0:
            raise ValueError("the proof is too long")
        if node & 1 or node == last:
            leaf = hashed(b"\1", each, leaf)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            leaf = hashed(b"\1", leaf, each)
        node, last = node >> 1, last >> 1
    if last == 0:
        return leaf
    raise ValueError("the proof is too short")


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Return a MessagePack value and where it ends; only the kinds that an entry has."""
    first = data[at]
    at += 1
    if first < 0x80 or first == 0xC0:
        return (first if first < 0x80 else None), at
    if first in {0xC4, 0xC5, 0xD9, 0xDA}:
        width = 1 if first in {0xC4, 0xD9} else 2
        end = at + width + int.from_bytes(data[at : at + width], "big")
        held = data[at + width : end]
        return (held.decode() if first >= 0xD9 else held), end
    if 0xA0 <= first < 0xC0:
        end = at + (first & 31)
        return data[at:end].decode(), end
    if 0xCC <= first <= 0xD3:
        end = at + (1 << (first & 3))
        return int.from_bytes(data[at:end], "big", signed=first >= 0xD0), end
    if 0x90 <= first < 0xA0 or first == 0xDC:
        start = at + 2 * (first == 0xDC)
        count, at = int.from_bytes(data[at:start], "big") or first & 15, start
        values = []
        for _ in range(count):
            value, at = unpack(data, at)
            values.append(value)
        return values, at
    raise ValueError("the record is not MessagePack of an entry")


def shown(name: str, value: Any) -> Any:
    if name == "exchange":
        return uuid.UUID(bytes=value)
    if name == "at_us":
        return f"{value}  ({datetime.fromtimestamp(value // 10**6, UTC)})"
    if name == "kind":
        return f"{value}  ({KINDS[value] if value < len(KINDS) else 'unknown'})"
    return value.hex() if isinstance(value, bytes) else value


# ML-DSA-44, FIPS 204: verification only. The names are those of the standard.

Q, D, TAU, GAMMA1, GAMMA2, OMEGA = 8380417, 13, 39, 1 << 17, 95232, 80
BETA, ROWS, N = 78, 4, 256
ZETAS = [pow(1753, int(f"{k:08b}"[::-1], 2), Q) for k in range(N)]


def ntt(w: list[int]) -> list[int]:
    k, length = 0, 128
    while length:
        for start in range(0, N, 2 * length):
            k += 1
            for j in range(start, start + length):
                t = ZETAS[k] * w[j + length] % Q
                w[j], w[j + length] = w[j] + t, w[j] - t
        length //= 2
    return [each % Q for each in w]


def ntt_inverse(w: list[int]) -> list[int]:
    k, length = N, 1
    while length < N:
        for start in range(0, N, 2 * length):
            k -= 1
            for j in range(start, start + length):
                t, u = w[j], w[j + length]
                w[j], w[j + length] = (t + u) % Q, (u - t) * ZETAS[k] % Q
        length *= 2
    return [each * 8347681 % Q for each in w]


def bits(data: bytes, width: int) -> list[int]:
    whole = int.from_bytes(data, "little")
    return [whole >> at & (1 << width) - 1 for at in range(0, 8 * len(data), width)]


def expanded(rho: bytes, row: int, column: int) -> list[int]:
    draws = bits(shake_128(rho + bytes([column, row])).digest(3 * 400), 24)
    fitting = [draw & 0x7FFFFF for draw in draws if draw & 0x7FFFFF < Q]
    return fitting[:N]  # that fewer than 256 of 400 fit does not happen


def challenge(seed: bytes) -> list[int]:
    data, c = shake_256(seed).digest(1000), [0] * N
    signs, at = int.from_bytes(data[:8], "little"), 8
    for i in range(N - TAU, N):
        while data[at] > i:
            at += 1
        c[i], c[data[at]] = c[data[at]], -1 if signs >> (i + TAU - N) & 1 else 1
        at += 1
    return c


def hints(data: bytes) -> list[list[int]] | None:
    """Return the places of the hints in each row; None where they are not in their one form."""
    rows, begin = [], 0
    for end in data[OMEGA:]:
        places = list(data[begin:end])
        if not begin <= end <= OMEGA or places != sorted(set(places)):
            return None
        rows.append(places)
        begin = end
    return None if any(data[begin:OMEGA]) else rows


def high_bits(r: int, *, hint: bool) -> int:
    r0 = r % (2 * GAMMA2)
    r0 = r0 - 2 * GAMMA2 if r0 > GAMMA2 else r0
    r1, r0 = (0, r0 - 1) if r - r0 == Q - 1 else ((r - r0) // (2 * GAMMA2), r0)
    return (r1 + (1 if r0 > 0 else -1)) % 44 if hint else r1


def ml_dsa_44_verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    if len(key) != 1312 or len(signature) != 2420:
        return False
    seed, z_bytes, marked = signature[:32], signature[32:2336], hints(signature[2336:])
    z = [[GAMMA1 - v for v in bits(z_bytes[at : at + 576], 18)] for at in range(0, 2304, 576)]
    if marked is None or any(abs(v) >= GAMMA1 - BETA for row in z for v in row):
        return False
    mu = shake_256(shake_256(key).digest(64) + b"\0\0" + message).digest(64)
    c, z_ntt, packed = ntt(challenge(seed)), [ntt(row) for row in z], 0
    for row in range(ROWS):
        t1 = ntt([v << D for v in bits(key[32 + 320 * row : 352 + 320 * row], 10)])
        a = [expanded(key[:32], row, column) for column in range(ROWS)]
        w = [sum(a[j][i] * z_ntt[j][i] for j in range(ROWS)) - c[i] * t1[i] for i in range(N)]
        for i, r in enumerate(ntt_inverse(w)):
            packed |= high_bits(r, hint=i in marked[row]) << 6 * (N * row + i)
    return seed == shake_256(mu + packed.to_bytes(768, "little")).digest(32)


def verified(proof: Path, vkeys: Path, openssl: str) -> tuple[list[str], list[Any]]:
    """Return what is proved, by whose signatures, and the fields of the record."""
    index, hashes, salt, record, note = read_proof(proof.read_bytes())
    keys = read_vkeys(vkeys.read_text(encoding="utf-8"))
    origin, size, root, signed = read_checkpoint(note, keys, openssl)
    if root_from(hashed(b"\0", salt, record), index, size, hashes) != root:
        raise ValueError("the proof does not lead from the record to the root")
    values, end = unpack(record)
    if end != len(record) or not isinstance(values, list):
        raise ValueError("the record is not one entry")
    return [f"proved: leaf {index} of {size} in {origin}", *signed], values


def main() -> None:
    parser = argparse.ArgumentParser(description="Check that a record stands in a privacy log.")
    parser.add_argument("proof", type=Path, help="a .tlog-proof file")
    parser.add_argument("vkeys", type=Path, help="verifier keys, one a line")
    parser.add_argument("--openssl", default="openssl", help="the command (default: %(default)s)")
    given = parser.parse_args()
    try:
        told, values = verified(given.proof, given.vkeys, given.openssl)
    except (OSError, ValueError, IndexError) as error:
        sys.exit(f"not proved: {error}")
    print(*told, sep="\n")
    for name, value in zip(FIELDS, values, strict=False):
        if value not in (None, "", [], 0):
            print(f"{name:>18}  {shown(name, value)}")


if __name__ == "__main__":
    main()
