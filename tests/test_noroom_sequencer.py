"""A sequencer that is far behind: nothing new is taken until it has come up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ksz_router import limits
from ksz_router.config import Tls
from ksz_router.daemon.contexts import Contexts
from ksz_router.privacylog.tree.checkpoint import Signer, make_keys
from ksz_router.privacylog.tree.sequence import Sequencer
from tests.daemon_ground import Ground
from tests.daemon_parts import in_trio
from tests.nights import Night


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    ground = Ground(tmp_path / "ground")
    certificate, key, authorities = (
        str(ground.pki / name) for name in ("router.crt", "router.key", "authorities.pem")
    )
    made = Night(tmp_path, Contexts(Tls(certificate, key, authorities)))
    yield made
    made.stop()
    ground.close()


@in_trio
async def test_a_log_that_is_not_sequenced_stops_the_router_until_it_is(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen within seconds; what is open ends; then it goes on by itself."""
    night.record()
    await night.pass_time(6)
    assert night.takes_requests
    monkeypatch.setattr(limits, "unsequenced_share_max", 0.0)
    await night.pass_time(6)
    assert not night.takes_requests
    assert night.keeping.reasons() == ("log_not_sequenced",)
    night.record()

    make_keys(night.folder / "checkpoint-keys", "log.example/router-a")
    sequencer = Sequencer(
        log=night.folder / "log",
        archive=night.folder / "archive",
        last_checkpoint=night.folder / "last-checkpoint",
        keys_folder=night.folder / "keys",
        signer=Signer(night.folder / "checkpoint-keys", "log.example/router-a"),
        now_ns=night.clocks.wall,
    )
    assert sequencer.cycle(night.clocks.wall).records == 2
    await night.pass_time(6)
    assert night.takes_requests
    assert night.keeping.reasons() == ()
    night.record()
    await night.pass_time(6)
    assert not night.takes_requests
    sequencer.close()
