"""The directories of secondary networks that are hosted here, beside the primary one.

Each is a person directory of the same format, in a folder of the network's name. One that cannot be
read is down, which is another thing than a person who is not in it: the control is told so.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.snapshot import Directory
from ksz_router.model import Line


class Sectoral:
    """The directories of secondary networks, open to be read. Not for several threads at once.

    Args:
        folder: Holds a folder for each network.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Directory] = {}
        self.down: dict[str, str] = {}
        """Networks whose directory cannot be read, and why; none of a person."""
        self._told: dict[str, str] = {}

    @property
    def names(self) -> frozenset[str]:
        """The networks whose directories are kept open, or should be."""
        return frozenset((*self._open, *self.down))

    def keep(self, names: Iterable[str]) -> None:
        """Keep the directories of these networks open, and close those of others."""
        wanted = set(names)
        for name in self.names - wanted:
            self.down.pop(name, None)
            if name in self._open:
                self._open.pop(name).close()
        for name in sorted(wanted - self._open.keys()):
            self._try_open(name)

    def refresh(self) -> None:
        """Open those that were down, and go over to newer versions; a broken one changes nothing.

        For a timer: it costs one ``stat`` for each that is open.
        """
        for name, directory in self._open.items():
            try:
                directory.refresh()
                self.down.pop(name, None)
            except DirectoryError as error:
                self.down[name] = f"the version before goes on serving: {error}"
        for name in sorted(self.down.keys() - self._open.keys()):
            self._try_open(name)

    def look_up(
        self, asked: Sequence[tuple[str | None, Sequence[str]]]
    ) -> list[Mapping[str, tuple[Line, ...]] | None]:
        """Return the lines of each person in the directories of some networks.

        Args:
            asked: Of each request the number of its person, and the networks to look into.

        Returns:
            Lines by network, of all numbers of the person; nothing of a network that is down. None
            where no network is to be looked into.
        """
        found: list[dict[str, tuple[Line, ...]] | None] = [{} if of else None for _, of in asked]
        for name in {name for _, of in asked for name in of}:
            places = [place for place, (_, of) in enumerate(asked) if name in of]
            directory = self._open.get(name)
            if directory is None:
                continue
            try:
                persons = directory.look_up([asked[place][0] for place in places])
            except DirectoryError as error:
                self._open.pop(name).close()
                self.down[name] = str(error)
                continue
            for place, person in zip(places, persons, strict=True):
                held = found[place]
                if held is not None:
                    held[name] = person.lines if person is not None else ()
        return list(found)

    def news(self) -> dict[str, str]:
        """Return what changed since this was last asked: why a network is down, or nothing."""
        names = self.down.keys() | self._told.keys()
        changed = {name for name in names if self.down.get(name) != self._told.get(name)}
        self._told = dict(self.down)
        return {name: self.down.get(name, "") for name in sorted(changed)}

    def close(self) -> None:
        """Close all of them."""
        self.keep(())

    def _try_open(self, name: str) -> None:
        try:
            self._open[name] = Directory.open(self._folder / name)
            self.down.pop(name, None)
        except (DirectoryError, OSError) as error:
            self.down[name] = str(error)
