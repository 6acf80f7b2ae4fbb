"""A keeper of lines of the person directory, written from docs/directory-services.md alone.

What goes on the wire is that of ``stranger.py``; here are only the payloads, by hand.

    python tests/stranger_keeper.py --port P --certificate C ... --asking JSON
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stranger import Requester, say, stop
    from tests.stranger_bytes import Fields, Unpacker, pack
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from stranger import Requester, say, stop
    from stranger_bytes import Fields, Unpacker, pack

LINE = ("sector", "type", "capacity", "phase", "begin", "end", "changed")
OPEN = 99991231
RETRY_AT, SOURCE_DOWN = 3, 4
TRIES = 100


class Keeper:
    """Keeps the lines of one role of one person."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.requester = Requester(options)
        self.role: Fields = json.loads(options.asking)
        self.tickets = 0

    def ask(self, service: str, payload: object = None, **fields: Any) -> Fields:
        """One request; what the directory told, and how it was answered."""
        self.tickets += 1
        packed = b"" if payload is None else pack(payload)
        words: Fields = {"service": f"directory.{service}", "version": 1, "payload": packed}
        words |= {"ticket": f"keeper-{service}-{self.tickets}", **self.role, **fields}
        answer = self.settled(words)
        told: Fields = {}
        if answer["payload"]:
            kind, pairs = Unpacker(answer["payload"]).value()
            told = dict(pairs) if kind == "map" else stop("an answer that is no map")
        codes = [row[2] for row in answer["recipients"]]
        lines = [dict(zip(LINE, line, strict=True)) for line in told.pop("lines", [])]
        return {"code": answer["code"], "source": codes, "lines": lines, **told}

    def settled(self, words: Fields) -> Fields:
        """Ask, and again while the directory is not reached, which may still be starting."""
        code = 0
        for _ in range(TRIES):
            (answer,) = self.requester.ask(self.requester.request(**words))
            if answer["action"] not in (RETRY_AT, SOURCE_DOWN):
                return answer
            code, later_ms = answer["code"], int(time.time() * 1000) + 100
            self.requester.listen_until(answer["retry_at_ms"] or later_ms)
        return stop(f"the directory is not reached: {code}")


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ("certificate", "key", "authorities", "router-uri", "asking"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.set_defaults(host="127.0.0.1", patience=20.0, submitting="{}")
    keeper = Keeper(parser.parse_args())
    keeper.requester.hello()
    say("inscribe", **keeper.ask("inscribe", {"phase": 1}, begin=20260301))
    say("overlap", **keeper.ask("inscribe", {}, begin=20260401))
    adjustment = {"phase": 3, "line_begin": 20260301}
    say("adjust", **keeper.ask("adjust", adjustment, begin=20260201, end=20261231))
    say("others", **keeper.ask("others", {"begin": 20260101}, begin=20260201, end=20260331))
    say("early", **keeper.ask("others", {"begin": 20260101}, begin=20260101, end=20260331))
    say("split", **keeper.ask("remove", {"what": "period"}, begin=20260601, end=20260630))
    say("lines", **keeper.ask("lines"))
    say("misspelt", **keeper.ask("remove", {"what": "capacity", "phases": 3}))
    say("remove", **keeper.ask("remove", {"what": "capacity", "phase": 3}))
    say("nothing", **keeper.ask("lines"))
    keeper.requester.bye()
    keeper.requester.connection.close()


if __name__ == "__main__":
    main()
