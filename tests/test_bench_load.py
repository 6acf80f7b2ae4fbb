"""The C program of the benches: it compiles without a warning and finds its places in a frame."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from bench import world
from ksz_router.messages import Request

COMPILER = shutil.which("cc") or shutil.which("gcc")
_PROBE = "#include <openssl/ssl.h>\nint main(void) { return 0; }\n"


def has_headers(folder: Path) -> bool:
    """A compiler without OpenSSL's headers cannot build the load; that is no fault of ours."""
    source = folder / "probe.c"
    source.write_text(_PROBE, encoding="ascii")
    words = [str(COMPILER), "-fsyntax-only", str(source)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_load_compiles_without_a_warning(tmp_path: Path) -> None:
    """The compiler has nothing to say about what the benches are measured with."""
    if not has_headers(tmp_path):
        pytest.skip("no libssl-dev")
    sources = sorted(Path(world.__file__).with_name("load").glob("*.c"))
    words = [str(COMPILER), "-O2", "-Wall", "-Wextra", "-Werror", *map(str, sources)]
    words += ["-o", str(tmp_path / "load"), "-lssl", "-lcrypto", "-lm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_without_headers_the_bench_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that finds nothing gives a message with the package's name, not a traceback."""
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    broken.chmod(0o755)
    monkeypatch.setitem(os.environ, "CC", str(broken))
    with pytest.raises(world.BenchError, match="libssl-dev"):
        world.compile_load(tmp_path)


@pytest.mark.parametrize("payload_bytes", [8, 300, 2_000, 70_000])
def test_patched_places_are_those_of_the_fields(payload_bytes: int) -> None:
    """What the generator writes over the frame is the id, the ticket and the person."""
    frame, places = world.request_frame(payload_bytes)
    patched = bytearray(frame)
    patched[places["id_at"] : places["id_at"] + 4] = (7).to_bytes(4, "big")
    patched[places["ticket_at"] : places["ticket_at"] + 16] = b"0123456789abcdef"
    patched[places["person_at"] : places["person_at"] + 11] = b"85073099734"
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    request = msgspec.msgpack.decode(patched[4:], type=Request)
    assert (request.id, request.person) == (7, "85073099734")
    assert len(request.ticket) == 36
    assert "0123456789abcdef" in request.ticket
    assert len(request.payload) == payload_bytes
