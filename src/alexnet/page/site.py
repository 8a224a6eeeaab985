"""A folder of files that shows the page without a server, from any web host or as a file: how it is made of the page's own files,
and how it is written.

The modules of the page are joined into one script, because a page that is opened as a file may not load modules. What a server
would answer stands in scripts that assign, because such a page may fetch nothing either; ``static/js/exported.js`` reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet.core.errors import AlexNetError, UsageError, printable, refused
from alexnet.core.runs import read_json, sha256_file, write_bytes

STATIC = Path(__file__).parent / "static"
LANGUAGES = ("en", "zh")
LIST, FORMAT = "export.json", "alexnet-site"
"""The file that names all others with their SHA-256: by it an earlier export is known, and what was put into one."""
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: blob: data:; base-uri 'none'; "
    "form-action 'none'"
)
"""What the page may load. Where it is a file itself, ``'self'`` is nothing to some browsers."""
HEAD = {
    '<meta charset="utf-8">\n': f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n',
    '<link rel="stylesheet" href="/static/app.css">\n': '<link rel="stylesheet" href="app.css">\n',
    '<script type="module" src="/static/js/main.js"></script>\n': '<script defer src="site.js"></script>\n'
    '<script defer src="page.js"></script>\n',
}
"""What is other in the page's HTML than where there is a server."""
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)


@dataclass
class Site:
    """A site that is being made. A path of the server's API has its answer in ``json`` or ``images`` from the start, or it is
    brought by the script that ``later`` names."""

    files: dict[str, bytes] = field(default_factory=dict)
    json: dict[str, Any] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)

    def add_image(self, path: str, name: str, content: bytes) -> None:
        """An image as a file."""
        self.files[name] = content
        self.images[path] = name

    def add_script(self, name: str, answers: Mapping[str, Any], images: Mapping[str, str]) -> None:
        """Answers, and images as ``data:`` URLs, that are loaded when one of them is first asked for."""
        lines = [f"Object.assign(ALEXNET_SITE.json, {literal(answers)});"]
        lines += [f"Object.assign(ALEXNET_SITE.images, {literal(images)});"] if images else []
        self.files[name] = "\n".join([*lines, ""]).encode()
        self.later |= dict.fromkeys([*answers, *images], name)

    def all_files(self) -> dict[str, bytes]:
        """Every file of the folder: those added, the page's own, and the list of them."""
        words = {f"/static/text/{name}.json": read_json(STATIC / "text" / f"{name}.json") for name in LANGUAGES}
        start = {"json": words | self.json, "images": self.images, "later": self.later}
        html = (STATIC / "index.html").read_text("utf-8")
        for before, after in HEAD.items():
            html = html.replace(before, after)
        files = {
            "index.html": html.encode(),
            "app.css": (STATIC / "app.css").read_bytes(),
            "page.js": joined(STATIC / "js", "main.js").encode(),
            "site.js": f"window.ALEXNET_SITE = {literal(start)};\n".encode(),
            **self.files,
        }
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        listed = {"format": FORMAT, "version": 1, "files": digests}
        return files | {LIST: (json.dumps(listed, indent=1) + "\n").encode()}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.all_files().values()))


def literal(value: Any) -> str:
    """A JSON value as JavaScript, ASCII, that would be data inside of any markup too."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def joined(folder: Path, name: str) -> str:
    """A module and all that it imports as one classic script: each once, behind those that it imports itself."""
    met: set[str] = set()
    parts: list[str] = []

    def add(name: str) -> None:
        if name not in met:
            met.add(name)
            source = (folder / name).read_text("utf-8")
            for other in IMPORT.findall(source):
                add(other)
            parts.append(re.sub("^export ", "", IMPORT.sub("", source), flags=re.MULTILINE))

    add(name)
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def require_free(folder: Path) -> None:
    """Raise :class:`UsageError` for a place that a site must not take: of anything but an export that nobody has changed."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{printable(folder)} is a file; --export names a folder")
    if folder.resolve() == Path.cwd():
        raise UsageError(f"{printable(folder)} is the folder that you are in; name another for --export")
    there = {path.relative_to(folder): path for path in folder.rglob("*")}
    if not there:
        return
    advice = "name another folder, or remove this one"
    try:
        listed = read_json(folder / LIST)
        if listed["format"] != FORMAT:
            raise KeyError
        digests: dict[Path, str] = {Path(name): digest for name, digest in listed["files"].items()}
    except (AlexNetError, OSError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{printable(folder)} holds files that are no exported site; {advice}") from None
    known = {Path(LIST), *digests, *(parent for name in digests for parent in name.parents)}
    for name, path in sorted(there.items()):
        if name not in known or path.is_symlink():
            raise UsageError(f"{printable(folder)} holds {printable(name)}, which was not exported; {advice}")
        if name in digests and sha256_file(path) != digests[name]:
            raise UsageError(f"{printable(path)} was changed after it was exported; {advice}")


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a folder whole or not at all: as ``.NAME.new`` beside it first. An earlier one becomes ``.NAME.old``, and is removed
    last. Raises :class:`AlexNetError` when the disk does not take it."""
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        shutil.rmtree(new, ignore_errors=True)  # left by a run that was killed
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(new / name, content)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
    except BaseException as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError):
            raise AlexNetError(f"not exported: {refused(error, folder)}") from error
        raise
    shutil.rmtree(old, ignore_errors=True)
