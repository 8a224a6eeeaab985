"""A sealed folder: a JSON file in it, written last, lists the other files with the SHA-256 of each.

Packed sets, features, indexes, checkpoints and model folders are sealed. Without its list a folder is unfinished; what is read
of one is first compared with the list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from alexnet.core.errors import AlexNetError, DataError, printable
from alexnet.core.runs import MAX_JSON_BYTES, read_file, read_json, sha256_file, write_json

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Seal:
    """How folders of one kind are sealed. What is raised is an ``error`` with the file, the fault and ``again``."""

    what: str
    """Such a folder, as in "a packed set"."""
    head: str = "meta.json"
    """Name of the file that holds the list."""
    formats: tuple[str | None, ...]
    """Values of ``format`` in it that are read."""
    version: int | None = None
    files: Literal["files", "sha256"] = "files"
    """Key of the list: of size and SHA-256 of each file, or of the SHA-256 alone."""
    check: str = ""
    """Key of the SHA-256 of all else in ``head``, if there is one; ``separators`` are those of the JSON text it is of."""
    separators: tuple[str, str] = (",", ":")
    max_bytes: int = MAX_JSON_BYTES
    error: type[AlexNetError] = DataError
    again: str = ""
    """What to do about a damaged folder."""

    def list_files(self, folder: Path, names: Iterable[str], known: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The list of these files; ``known`` are SHA-256 that were computed before."""
        digests = {name: (known or {}).get(name) or sha256_file(folder / name) for name in names}
        if self.files == "sha256":
            return digests
        return {name: {"bytes": (folder / name).stat().st_size, "sha256": digest} for name, digest in digests.items()}

    def sealed(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """``head`` with its ``check``."""
        return {**head, self.check: canonical_hash(head, self.separators)} if self.check else dict(head)

    def write(self, folder: Path, head: Mapping[str, Any]) -> None:
        """Seal a folder whose other files are there."""
        write_json(folder / self.head, self.sealed(head))

    def read(self, folder: Path) -> dict[str, Any]:
        """What ``head`` says, without its ``check``. Only names of files in the folder itself are listed in it."""
        path = folder / self.head
        try:
            head = read_json(path, self.max_bytes)
        except AlexNetError as error:
            raise self._error(str(error), self.again) from error
        if not isinstance(head, dict) or head.get("format") not in self.formats:
            raise self._error(f"{printable(path)}: not that of {self.what}", "name another folder")
        if (version := head.get("version")) != self.version:
            said = f"{printable(path)}: of version {printable(version)[:20]}, this program reads {self.version}"
            raise self._error(said, "upgrade it" + (f", or {self.again}" if self.again else ""))
        if self.check and head.pop(self.check, None) != canonical_hash(head, self.separators):
            raise self.fault(path, "damaged or edited")
        if not isinstance(files := head.get(self.files), dict):
            raise self.fault(path, f"not as this program writes it: {self.files} is missing")
        for name in files:
            if name in ("", ".", "..") or set(name) & set("/\\\0"):
                raise self.fault(path, f"{printable(name)[:40]!r} is no file of {self.what}")
            listed = self._listed(head, name)
            sized = self.files == "sha256" or type(listed.get("bytes")) is int
            if not sized or not isinstance(listed.get("sha256"), str):
                raise self.fault(path, f"size or SHA-256 of {printable(name)[:40]} is missing")
        return head

    def require(self, folder: Path, head: Mapping[str, Any], name: str, *, contents: bool = True) -> None:
        """Compare a file with the list; without ``contents`` its size alone."""
        file, listed = folder / name, self._listed(head, name)
        if not file.is_file():
            raise self.fault(file, "not a regular file" if file.exists() else "missing")
        if (size := file.stat().st_size) != listed.get("bytes", size):
            raise self.fault(file, f"{size:,} bytes, but {self.head} says {listed['bytes']:,}")
        if contents and sha256_file(file) != listed["sha256"]:
            raise self._damaged(file)

    def content(self, folder: Path, head: Mapping[str, Any], name: str, max_bytes: int | None = None) -> bytes:
        """The bytes of a file. It is read once: what is used is what was compared."""
        return self.made(folder, head, name, lambda content: content, max_bytes)

    def made(
        self,
        folder: Path,
        head: Mapping[str, Any],
        name: str,
        make: Callable[[bytes], Made],
        max_bytes: int | None = None,
    ) -> Made:
        """What ``make`` makes of the bytes of a file, while a thread compares them: its answer, or its error, counts only if they
        are those of the list."""
        self.require(folder, head, name, contents=False)
        content = read_file(folder / name, max_bytes)
        with ThreadPoolExecutor(1) as aside:
            digest = aside.submit(lambda: hashlib.sha256(content).hexdigest())
            try:
                return make(content)
            finally:
                if digest.result() != self._listed(head, name)["sha256"]:
                    raise self._damaged(folder / name)

    def fault(self, path: Path, what: str) -> AlexNetError:
        return self._error(f"{printable(path)}: {what}", self.again)

    def _damaged(self, file: Path) -> AlexNetError:
        return self.fault(file, f"damaged, its SHA-256 is not that in {self.head}")

    def _error(self, said: str, again: str) -> AlexNetError:
        return self.error(f"{said}; {again}" if again else said)

    def _listed(self, head: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        listed = head[self.files].get(name)
        return listed if isinstance(listed, dict) else {"sha256": listed}


def canonical_hash(value: Any, separators: tuple[str, str] = (",", ":")) -> str:
    """The SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=separators, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
