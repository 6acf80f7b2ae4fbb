"""A generation is named by its content, joined right, written whole or not at all."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ksz_router.identifiers import Kbo
from ksz_router.model import AccessRight, Mode
from ksz_router.rulebook.compile import RulebookRefusedError, build, write
from ksz_router.rulebook.generation import RightRows, Rows, RulebookError
from ksz_router.rulebook.join import join
from ksz_router.rulebook.snapshot import Snapshot
from ksz_router.rulebook.source import read
from tests.worlds import CENTRE, EXAMPLE, NIC, make_world

_NAME = """
import sys
from pathlib import Path
from ksz_router.rulebook.generation import name_of
from ksz_router.rulebook.join import join
from ksz_router.rulebook.source import read
print(name_of(join(read(Path(sys.argv[1]))[0])))
"""


def test_the_name_is_the_same_whatever_the_hash_seed(tmp_path: Path) -> None:
    """Sets are hashed sorted: two machines give one text one name."""
    names = set()
    for seed in ("1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _NAME, str(EXAMPLE)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        names.add(done.stdout)
    assert len(names) == 1


def test_the_name_follows_the_rows_and_not_the_files(tmp_path: Path) -> None:
    """Moving a row to another file gives the same generation; changing it gives another."""
    world = make_world(tmp_path)
    rights = world.text / "rights"
    (rights / "others.toml").rename(rights / "aaa.toml")
    same, _ = build(world.text, world.store, now_ns=5)
    service = world.text / "services" / "other.toml"
    service.write_text(
        service.read_text(encoding="utf-8").replace('recipient = "log"', 'recipient = "block"'),
        encoding="utf-8",
    )
    other, _ = build(world.text, world.store, now_ns=6)

    assert same.name == world.name
    assert other.name != world.name
    assert {p.name for p in (world.store / "generations").iterdir()} == {same.name, other.name}


def test_building_again_leaves_the_signed_generation_as_it_is(tmp_path: Path) -> None:
    """A second build must not take the signature of the running generation away."""
    world = make_world(tmp_path)
    folder = world.store / "generations" / world.name
    before = {p.name: (p.stat().st_ino, p.read_bytes()) for p in folder.iterdir()}

    build(world.text, world.store, now_ns=9)

    assert {p.name: (p.stat().st_ino, p.read_bytes()) for p in folder.iterdir()} == before


def test_a_refused_text_writes_nothing(tmp_path: Path) -> None:
    """Whole or not at all, and every finding is told."""
    world = make_world(tmp_path)
    (world.text / "grants.toml").write_text("", encoding="utf-8")
    with pytest.raises(RulebookRefusedError, match=r"1 error\(s\)") as refused:
        build(world.text, tmp_path / "other", now_ns=1)
    assert [finding.place.file for finding in refused.value.findings] == ["grants.toml"]
    assert not (tmp_path / "other").exists()


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """A file where the store should be is a typed error that names it."""
    (tmp_path / "store").write_text("", encoding="utf-8")
    with pytest.raises(RulebookError, match="cannot be written"):
        build(EXAMPLE, tmp_path / "store", now_ns=1)


def test_what_a_crash_left_is_no_generation(tmp_path: Path) -> None:
    """A half-written folder has another name, and the next build succeeds beside it."""
    left = tmp_path / "generations" / ".building-crash"
    left.mkdir(parents=True)
    (left / "data.mdb").write_bytes(b"half")
    manifest, _ = build(EXAMPLE, tmp_path, now_ns=1)
    Snapshot.open(tmp_path, manifest.name).close()


def test_the_manifest_says_what_is_in_it(tmp_path: Path) -> None:
    """The counts, the moment, the hash of the data and of every source file."""
    manifest, _ = build(EXAMPLE, tmp_path, now_ns=1_795_300_000_000_000_000)
    data = (tmp_path / "generations" / manifest.name / "data.mdb").read_bytes()

    assert manifest.counts == {
        "institutions": 16,
        "services": 22,
        "grants": 46,
        "availability": 23,
        "outages": 1,
        "rights": 14,
    }
    assert manifest.data_sha256 == hashlib.sha256(data).hexdigest()
    assert manifest.built_at == "2026-11-21T22:26:40+00:00"
    assert {(f.path, f.sha256) for f in manifest.files} == {
        (p.relative_to(EXAMPLE).as_posix(), hashlib.sha256(p.read_bytes()).hexdigest())
        for p in EXAMPLE.rglob("*.toml")
    }


def test_deliberation_modes_and_recipients_are_joined_in() -> None:
    """The control finds in one row what the text says in several."""
    rows = {(r.service.name, r.service.version): r for r in join(read(EXAMPLE)[0]).services}
    handi = {grant.id: grant for grant in rows["Handi", 1].grants}
    (registry,) = rows["RetrieveTIGroups", 2].sources
    (pod_mi,) = rows["A036", 1].sources
    rva, nic = rows["MutationsSender", 1].sources

    assert (handi["nic-handi"].basis_begin, handi["nic-handi"].basis_end) == (20150602, 20240630)
    assert handi["ocmw-handi"].own_mode is Mode.BLOCK
    assert registry.mode is Mode.NONE
    assert pod_mi.mode is Mode.LOG
    assert [grant.id for grant in pod_mi.receive] == ["podmi-a036"]
    assert [grant.id for grant in rva.receive] == ["rva-mutations"]
    assert [grant.id for grant in nic.receive] == ["nic-mutations"]
    assert nic.secondary_network == "ziekteverzekering"
    assert ("TestConnectionService", 1) in rows


def test_the_control_of_a_role_wins_over_that_of_every_role(tmp_path: Path) -> None:
    """A row without role is the default; one with the grant's role decides."""
    world = make_world(tmp_path)
    with (world.text / "services" / "other.toml").open("a", encoding="utf-8") as file:
        for role, mode in (("", "log"), ('role = "17/1"\n', "none")):
            file.write(f'[[control]]\nservice = "Handi"\nversion = 1\n{role}own = "{mode}"\n')
    rows = join(read(world.text)[0]).services
    modes = {g.id: g.own_mode for r in rows for g in r.grants if g.service == "Handi"}
    assert modes == {"ocmw-handi": Mode.NONE, "nic-handi": Mode.LOG}


def test_a_large_table_is_written_and_read(tmp_path: Path) -> None:
    """The map is made large enough: LMDB's own default would end at ten megabytes."""
    services = frozenset(f"Service{n:04}" for n in range(60))
    right = AccessRight(kbo=CENTRE, services=services)
    rights = tuple(RightRows(CENTRE, f"u{n:032x}", (right,)) for n in range(18_000))
    manifest = write(Rows((), (), (), rights), tmp_path, (), 1)
    snapshot = Snapshot.open(tmp_path, manifest.name)

    assert (tmp_path / "generations" / manifest.name / "data.mdb").stat().st_size > 10 * 1024**2
    assert snapshot.rights(CENTRE, f"u{17_999:032x}") == (right,)
    assert snapshot.rights(Kbo(NIC), f"u{17_999:032x}") == ()
    snapshot.close()
