"""The cache folder: which of its sets holds these images, what there is, and what may go.

An entry is named after its source, and after the names, sizes and times of its files when it was prepared. One of other times is
found by its contents. A process that has opened a set holds its files locked, so that nothing in use is removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alexnet.core.errors import AlexNetError, UsageError, perhaps, printable
from alexnet.core.runs import cache_folder, read_json, write_json
from alexnet.data.contents import SETTLED_NS, UNREADABLE, crc32s
from alexnet.data.packed import UNFINISHED, PackedSet, open_packed
from alexnet.data.sources import Record, fingerprint_of

USED = ".used.json"
"""File in an entry that says where its images were found, and when their contents were last compared."""
REMOVING = ".removing-"
"""Begins the name of an entry that is being removed."""
UNUSED_DAYS = 90
"""Days without use after which features may be removed: they can be computed again."""

LEFT_SECONDS = 86400
"""Age in seconds from which a temporary folder is taken for one left by a killed process."""

Kind = Literal["set", "unfinished set", "drawn set", "features", "kernels", "weights", "remains"]
Progress = Callable[[int, int], None]


# --- finding a set by what it holds -----------------------------------------------------------------------------------


def shape_of(protocol: str, classes: Sequence[str], records: Sequence[Record]) -> str:
    """A fingerprint of everything about a set but the bytes of its images, which are not read: how they are decoded, and split,
    class, name and size of each, in order."""
    lines = (f"{r.split} {r.label} {r.size} {r.name}" for r in records)
    return fingerprint_of(protocol, *classes, *lines)


def contents_of(crc32_N: Sequence[int]) -> str:
    """A fingerprint of the bytes of the images."""
    return fingerprint_of(*("unreadable" if crc32 == UNREADABLE else f"{crc32:08x}" for crc32 in crc32_N))


def find_set(
    cache: Path, stamped: str, shape: str, records: Sequence[Record], progress: Progress | None = None
) -> Path | None:
    """The finished set in the folder ``cache`` that was prepared from these images, whatever they were called and whenever they
    were touched. ``stamped``: the fingerprint that has the times of their files.

    Files are read only if the times are new, or if one of them changed in any way since they were last compared."""
    contents = ""
    for folder in _folders(cache):
        if not (folder / "meta.json").is_file():
            continue
        try:
            meta = read_json(folder / "meta.json")
            source = meta.get("source")
        except (AlexNetError, AttributeError):
            continue
        same_stamps = meta.get("plan") == stamped
        if not isinstance(source, dict):  # written by an earlier version, without the contents
            if same_stamps:
                return folder
        elif source.get("shape") == shape:
            if same_stamps and _unchanged_since(_used(folder).get("compared"), records):
                return folder
            began = time.time_ns()
            contents = contents or contents_of(crc32s(records, progress).tolist())
            if source.get("contents") == contents:
                note_use(folder, compared=began)
                return folder
    return None


def same_contents(meta: dict[str, Any], shape: str, records: Sequence[Record]) -> bool:
    """Whether a packed set was prepared from these images, whose files are read."""
    source = meta.get("source")
    if not isinstance(source, dict) or source.get("shape") != shape:
        return False
    return bool(source.get("contents") == contents_of(crc32s(records).tolist()))


def note_use(folder: Path, source: str | Path | None = None, compared: int | None = None) -> None:
    """Write down in an entry of the cache that it is used now, for which ``source``, and that the files of that were
    ``compared`` at this time, in ns. A cache that may not be written stays as it is."""
    with suppress(OSError):
        known = _used(folder)
        new = dict(known)
        if source is not None:
            place = os.path.abspath(source)  # noqa: PTH100
            new["sources"] = [place, *(other for other in known["sources"] if other != place)][:8]
        if compared is not None:
            new["compared"] = compared
        if new != known:
            write_json(folder / USED, new)
        os.utime(folder)


def _used(folder: Path) -> dict[str, Any]:
    try:
        value = read_json(folder / USED, 1 << 20)
    except AlexNetError:
        value = None
    value = value if isinstance(value, dict) else {}
    sources, compared = value.get("sources"), value.get("compared")
    return {
        "sources": [s for s in sources if isinstance(s, str)] if isinstance(sources, list) else [],
        "compared": compared if isinstance(compared, int) else None,
    }


def _unchanged_since(compared: int | None, records: Sequence[Record]) -> bool:
    """Whether no file was written, replaced or renamed since: its time of change, which no program can set back, is older."""
    if compared is None:
        return False
    try:
        changed = max((os.stat(file).st_ctime_ns for file in {r.file for r in records if r.data is None}), default=0)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return changed < compared - SETTLED_NS


# --- what there is ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """Something in the cache."""

    name: str
    kind: Kind
    path: Path
    bytes: int
    used: float
    """When it was last used, in seconds since 1970."""
    sources: list[str]
    """Where the images of a set were found, the latest first."""
    needless: str = ""
    """Why nobody needs it; empty if somebody may."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "bytes": self.bytes,
            "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.used)),
            "sources": [{"path": source, "exists": os.path.exists(source)} for source in self.sources],  # noqa: PTH110
            "needless": self.needless,
        }


def entries(decoder: dict[str, Any], cache: str | Path | None = None) -> list[Entry]:
    """What the cache holds, that which was used last first. ``decoder``: versions of the decoders in use; a set made by others
    will not be found again."""
    folder = cache_folder(cache)
    found = [_entry(path, decoder) for path in _folders(folder) if path.name != "features"]
    found += [_entry(path, decoder) for path in _folders(folder / "features")]
    found.sort(key=lambda entry: (-entry.used, entry.name))
    return list(_older_states(found))


def _folders(cache: Path) -> list[Path]:
    try:
        return sorted(path for path in cache.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _entry(path: Path, decoder: dict[str, Any]) -> Entry:
    features = path.parent.name == "features"
    kind: Kind = "remains"
    needless, age = "", time.time() - path.stat().st_mtime
    if path.name.startswith("."):
        needless = "left by a process that was killed" if age > LEFT_SECONDS else ""
    elif features:
        kind = "features"
        if age > UNUSED_DAYS * 86400:
            needless = f"not used for {UNUSED_DAYS} days"
    elif path.name in ("kernels", "weights"):
        kind = "kernels" if path.name == "kernels" else "weights"
    elif path.name.startswith("shapes-v") and not (path / "meta.json").is_file() and not (path / UNFINISHED).is_dir():
        kind = "drawn set"
    elif (path / UNFINISHED).is_dir() and not (path / "meta.json").is_file():
        kind, needless = "unfinished set", "its preparation was not finished"
    else:
        kind, needless = "set", _needless_set(path, decoder)
    sources = _used(path)["sources"] if kind == "set" else []
    if kind == "set" and not needless and sources and not any(os.path.exists(s) for s in sources):  # noqa: PTH110
        needless = "its source is gone"
    name = f"features/{path.name}" if features else path.name
    return Entry(name, kind, path, _size(path), path.stat().st_mtime, sources, needless)


def _needless_set(path: Path, decoder: dict[str, Any]) -> str:
    try:
        packed: PackedSet = open_packed(path)
    except (AlexNetError, OSError):
        return "it is damaged, or of another version"
    return "" if packed.meta["protocol"].get("decoder") == decoder else "made by other versions of the decoders"


def _older_states(found: Sequence[Entry]) -> Iterator[Entry]:
    """``found``, the latest first, with what a source held earlier marked: of each source, size and
    store the latest is needed."""
    latest: set[tuple[Any, ...]] = set()
    for entry in found:
        if entry.kind != "set" or entry.needless or not entry.sources:
            yield entry
            continue
        meta = read_json(entry.path / "meta.json")
        keys = {(source, meta["size"], meta["store"]) for source in entry.sources if os.path.exists(source)}  # noqa: PTH110
        yield replace(entry, needless="a newer one is there of the same source") if keys <= latest else entry
        latest |= keys


def _size(folder: Path) -> int:
    """Bytes on the disk."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


# --- removing ---------------------------------------------------------------------------------------------------------


def named(names: Sequence[str], found: Sequence[Entry]) -> list[Entry]:
    """The entries of these names. An unknown one is a :class:`UsageError`."""
    by_name = {entry.name: entry for entry in found}
    for name in names:
        if name not in by_name:
            raise UsageError(
                f"the cache holds no {printable(name)}{perhaps(name, by_name)}; `alexnet cache` lists what it holds"
            )
    return [by_name[name] for name in dict.fromkeys(names)]


def remove(entry: Entry) -> None:
    """Remove an entry from the disk. Raises :class:`AlexNetError` if a process uses it; then it stays whole."""
    with _unused(entry):
        aside = entry.path.with_name(f"{REMOVING}{entry.path.name.lstrip('.')}-{os.getpid()}")
        try:
            entry.path.rename(aside)
        except FileNotFoundError:  # another process removed it
            return
        except OSError as error:
            raise AlexNetError(f"{printable(entry.path)}: cannot be removed ({printable(error.strerror)})") from error
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _unused(entry: Entry) -> Iterator[None]:
    """Everything that a process which uses the entry would have locked is locked meanwhile."""
    with ExitStack() as stack:
        for file in sorted(entry.path.rglob("*")):
            if (file.suffix not in (".npy", ".bin") and file.name != "lock") or not file.is_file():
                continue
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlexNetError(f"{entry.name} is in use by another process, and stays") from None
            except OSError as error:
                raise AlexNetError(
                    f"{entry.name} stays: it cannot be asked whether a process uses it ({printable(error.strerror)}); if none "
                    f"does, remove {printable(entry.path)} yourself"
                ) from error
        yield
