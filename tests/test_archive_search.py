"""The same questions to a log that is sealed, in part or whole, give the same rows."""

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.privacylog.archive.assemble import query as query_all
from ksz_router.privacylog.archive.engine import Engine
from ksz_router.privacylog.query import query as query_live
from ksz_router.privacylog.question import Asked
from ksz_router.privacylog.rows import Row
from tests.archive_ground import Ground
from tests.archive_log import RandomLog, some_question


def pages(ground: Ground, asked: Asked, limit: int, engine: Engine) -> list[Row]:
    """All rows, page by page."""
    rows: list[Row] = []
    after = None
    while True:
        found = query_all(
            ground.world.log, ground.world.keys, ground.archive, asked,
            limit=limit, after=after, engine=engine,
        )  # fmt: skip
        assert found.damaged == []
        assert len(found.rows) == limit or found.more is None
        rows += found.rows
        if found.more is None:
            return rows
        after = found.more


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 100), limit=st.sampled_from((1, 2, 7, 1000)))
def test_what_is_sealed_and_what_is_not_answer_as_one(seed: int, cut: int, limit: int) -> None:
    """Whatever is asked, and wherever the log is cut: nothing twice, nothing missed, no order lost."""
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        log = RandomLog(ground.world, seed)
        log.go_on(cut)
        ground.seal(leaves_max=random.Random(seed).choice((8, 1 << 18)))
        log.go_on(100 - cut)
        questions = [some_question(log.random) for _ in range(25)]
        log.close()
        engine = Engine(ground.archive)
        expected = [
            query_live(ground.world.log, ground.world.keys, asked).rows for asked in questions
        ]
        for _ in ("in part", "whole"):
            for asked, rows in zip(questions, expected, strict=True):
                assert pages(ground, asked, limit, engine) == rows, asked
            ground.seal()
        engine.close()
