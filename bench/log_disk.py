"""Every change that a program makes below a folder, in its order.

While a :class:`Watch` is entered the calls of ``os`` that change files are seen in their order;
each may be made to fail before or after it takes effect. What a power cut may leave of the changes
is drawn by ``log_left.py``.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

NAMES = ("create", "link", "rename", "unlink", "mkdir")


class Change(NamedTuple):
    """One change, or one flush, below the folder."""

    call: str
    """``create``, ``write``, ``resize``, ``flush``, ``link``, ``rename``, ``unlink``, ``mkdir``,
    or ``sync``: of a folder."""
    path: str
    """Of the file or folder, below the watched one; for a link or rename, the new name."""
    inode: int
    offset: int = 0
    """``resize``: the new size."""
    data: bytes = b""
    before: str = ""
    """The name that was linked or renamed."""


Step: TypeAlias = Callable[[Change, bool], None]
"""Called with each change before (False) and after (True) it takes effect; may raise."""


class Watch:
    """Sees changes below ``folder`` while it is entered. For one thread.

    Attributes:
        changes: In their order.
        files: Content of the files that were there at the beginning, by inode.
        names: Inode of each name that was there at the beginning; 0 for a folder.
    """

    def __init__(self, folder: Path, step: Step = lambda _change, _done: None) -> None:
        self.folder = folder
        self.changes: list[Change] = []
        self.files: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        self._root = str(folder.resolve())
        self._step = step
        self._inodes: dict[tuple[int, int], int] = {}
        self._paths: dict[int, str] = {}
        self._seen: dict[int, int] = {}
        self._kept: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_dir():
                self.names[name] = 0
                continue
            inode = self._inode(os.lstat(path), name)
            self.names[name] = inode
            self.files[inode] = path.read_bytes()
        for name in ("open", "pwrite", "write", "ftruncate", "fsync", "fdatasync", "link",
                     "rename", "replace", "unlink", "remove", "mkdir"):  # fmt: skip
            self._kept[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"_{name}"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, function in self._kept.items():
            setattr(os, name, function)

    def unseen(self) -> list[str]:
        """Return the files whose content came about without a change that was seen.

        Of what is written by other means than the calls of ``os`` nothing could be said.
        """
        files, names = replayed(self, len(self.changes))
        found = {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}
        known = {name for name, inode in names.items() if inode}
        other = {n for n in found & known if (self.folder / n).read_bytes() != files[names[n]]}
        return sorted(found ^ known | other)

    def _inode(self, state: os.stat_result, name: str) -> int:
        key = (state.st_dev, state.st_ino)
        if key not in self._inodes:
            self._inodes[key] = len(self._paths) + 1
            self._paths[self._inodes[key]] = name
        return self._inodes[key]

    def _below(self, path: Any) -> str | None:
        text = str(Path(path).absolute()) if not isinstance(path, int) else ""
        return text[len(self._root) + 1 :] if text.startswith(self._root + "/") else None

    def _of(self, descriptor: int) -> int | None:
        """Return the inode behind a descriptor, if it is one of ours."""
        state = os.fstat(descriptor)
        return self._inodes.get((state.st_dev, state.st_ino))

    def _change(self, change: Change, act: Callable[[], Any]) -> Any:
        self._step(change, False)
        result = act()
        self.changes.append(change)
        self._step(change, True)
        return result

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        opened: int
        name = self._below(path) if dir_fd is None else None
        is_new = name is not None and flags & os.O_CREAT and not os.path.lexists(path)
        if name is not None and is_new:
            self._step(Change("create", name, 0), False)
        opened = self._kept["open"](path, flags, mode, dir_fd=dir_fd)
        if name is None:
            return opened
        state = os.fstat(opened)
        key = (state.st_dev, state.st_ino)
        if is_new:
            self._inodes.pop(key, None)  # of a file that is gone
            change = Change("create", name, self._inode(state, name))
        elif flags & os.O_TRUNC:
            change = Change("resize", name, self._inode(state, name))
        else:
            if Path(path).is_dir():
                self._seen[opened] = self._inode(state, name)
                self._paths[self._seen[opened]] = name
            return opened
        self.changes.append(change)
        try:
            self._step(change, True)
        except BaseException:
            os.close(opened)
            raise
        return opened

    def _pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        inode = self._of(descriptor)
        if inode is None:
            return int(self._kept["pwrite"](descriptor, data, offset))
        change = Change("write", self._paths[inode], inode, offset, bytes(data))
        return int(self._change(change, lambda: self._kept["pwrite"](descriptor, data, offset)))

    def _write(self, descriptor: int, data: bytes) -> int:
        inode = self._of(descriptor)
        if inode is None:
            return int(self._kept["write"](descriptor, data))
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        change = Change("write", self._paths[inode], inode, offset, bytes(data))
        return int(self._change(change, lambda: self._kept["write"](descriptor, data)))

    def _ftruncate(self, descriptor: int, size: int) -> None:
        inode = self._of(descriptor)
        if inode is None:
            self._kept["ftruncate"](descriptor, size)
            return
        change = Change("resize", self._paths[inode], inode, size)
        self._change(change, lambda: self._kept["ftruncate"](descriptor, size))

    def _fsync(self, descriptor: int) -> None:
        self._flush("fsync", descriptor)

    def _fdatasync(self, descriptor: int) -> None:
        self._flush("fdatasync", descriptor)

    def _flush(self, how: str, descriptor: int) -> None:
        inode = self._of(descriptor)
        path = "" if inode is None else self._paths[inode]
        if inode is None:
            state = os.fstat(descriptor)
            root = Path(self._root).stat()
            if (state.st_dev, state.st_ino) != (root.st_dev, root.st_ino):
                self._kept[how](descriptor)
                return
        is_folder = inode is None or Path(self._root, path).is_dir()
        change = Change("sync" if is_folder else "flush", path, inode or 0)
        self._change(change, lambda: self._kept[how](descriptor))

    def _link(self, source: Any, target: Any, **options: Any) -> None:
        self._two("link", source, target, options)

    def _rename(self, source: Any, target: Any, **options: Any) -> None:
        self._two("rename", source, target, options)

    def _replace(self, source: Any, target: Any, **options: Any) -> None:
        self._two("replace", source, target, options)

    def _two(self, call: str, source: Any, target: Any, options: Any) -> None:
        before, name = self._below(source), self._below(target)
        act = self._kept[call]
        if before is None or name is None:
            act(source, target, **options)
            return
        inode = self._inode(os.lstat(source), before)
        kind = "link" if call == "link" else "rename"
        change = Change(kind, name, inode, before=before)
        self._change(change, lambda: act(source, target, **options))
        self._paths[inode] = name

    def _unlink(self, path: Any, **options: Any) -> None:
        name = self._below(path)
        if name is None or not os.path.lexists(path):
            self._kept["unlink"](path, **options)
            return
        change = Change("unlink", name, self._inode(os.lstat(path), name))
        self._change(change, lambda: self._kept["unlink"](path, **options))

    def _remove(self, path: Any, **options: Any) -> None:
        self._unlink(path, **options)

    def _mkdir(self, path: Any, mode: int = 0o777, **options: Any) -> None:
        name = self._below(path)
        if name is None:
            self._kept["mkdir"](path, mode, **options)
            return
        self._change(Change("mkdir", name, 0), lambda: self._kept["mkdir"](path, mode, **options))


def replayed(watch: Watch, behind: int) -> tuple[dict[int, bytearray], dict[str, int]]:
    """Return the files by inode, and the names, behind so many changes."""
    files = {inode: bytearray(data) for inode, data in watch.files.items()}
    names = dict(watch.names)
    for change in watch.changes[:behind]:
        if change.call in NAMES:
            rename(names, change)
            if change.call == "create":
                files[change.inode] = bytearray()
        elif change.call in {"write", "resize"}:
            apply(files.setdefault(change.inode, bytearray()), change)
    return files, names


def apply(data: bytearray, change: Change) -> None:
    """Do a write or a change of size to the content of a file."""
    if change.call == "resize":
        size = change.offset
        data[:] = data[:size].ljust(size, b"\0")
        return
    end = change.offset + len(change.data)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    data[change.offset : end] = change.data


def rename(names: dict[str, int], change: Change) -> None:
    """Do what makes, moves or removes a name."""
    if change.call == "unlink":
        names.pop(change.path, None)
        return
    if change.call == "rename":
        names.pop(change.before, None)
    names[change.path] = change.inode
