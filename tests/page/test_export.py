"""A site that is shown without a server: what is in it, what fits, and how it is written."""

from __future__ import annotations

import errno
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import DESK, PHONE, STATIC, WORDS, faint_or_nameless, settle, visited
from PIL import Image
from rooms import SMALL, picture_for, room_of

from alexnet.cli.serve import serve
from alexnet.core.errors import AlexNetError, ImageError, UsageError
from alexnet.models.folder import save_model_folder
from alexnet.page import export as exporting
from alexnet.page import see
from alexnet.page.export import Exported, export, ranked, stored_maps
from alexnet.page.room import Room
from alexnet.page.site import Site, joined, literal, require_free, write

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setattr(exporting, "WITH_OPTIMAL", 0)  # they take most of the time
    return room_of("alexnet_2012", tmp_path / "cache", **SMALL)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Two picture files with names that mean something in HTML and in Chinese."""
    files = [tmp_path / "<b>cat&.png", tmp_path / "猫.png"]
    for seed, file in enumerate(files):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (80, 100, 3), np.uint8)).save(file)
    return [*map(str, files)]


def start_of(site: Path) -> dict[str, Any]:
    """What the first script of a site assigns."""
    text = (site / "site.js").read_text("ascii")
    assert text.startswith("window.ALEXNET_SITE = ")
    assert text.endswith(";\n")
    return json.loads(text.removeprefix("window.ALEXNET_SITE = ").removesuffix(";\n"))


def start_answers(site: Path, picture: str) -> list[dict[str, Any]]:
    """The answers to a picture, from the script that brings them."""
    text = (site / start_of(site)["later"][f"/api/pictures/{picture}"]).read_text("ascii")
    found = json.JSONDecoder().raw_decode(text[text.index(f'"/api/pictures/{picture}":') :].partition(":")[2])[0]
    return found["answers"]


def everything(site: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(site.rglob("*")) if path.is_file())


def test_a_site_has_every_path_it_names_and_is_listed_whole(
    room: Room, pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "WITH_OPTIMAL", 1)
    done = export(room, tmp_path / "site", pictures)
    site = tmp_path / "site"
    start = start_of(site)
    there = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {*start["images"].values(), *start["later"].values()} <= there
    assert {*json.loads((site / "export.json").read_text())["files"], "export.json"} == there
    samples = start["json"]["/api/samples"]["samples"]
    assert [one["label"] for one in samples] == ["<b>cat&", "猫"]
    for one in samples:
        path = f"/api/pictures/{one['picture']}"
        assert {path, f"{path}/views", f"{path}/maps/conv1", f"{path}/maps/conv5.png"} <= start["later"].keys()
        assert {f"{path}/input.png", f"{path}/square.png"} <= start["images"].keys()
        top = start_answers(site, one["picture"])[0]["label"]
        heats = [f"{path}/saliency.png?label={top}&method={method}" for method in see.METHODS]
        assert {*heats, f"{path}/occlusion.png?label={top}"} <= start["images"].keys()
    units = sum(SMALL["conv_channels"]) + sum(SMALL["fc_units"]) + SMALL["num_classes"]
    assert done == Exported(str(site), len(everything(site)), 2, units, [])
    assert {f"/api/units/conv1/{k}" for k in range(8)} <= start["later"].keys()
    assert {f"/api/units/conv1/{k}/kernel.png" for k in range(8)} <= start["images"].keys()
    wanted = [path for path in start["images"] if path.endswith("/optimal.png")]
    assert [path.split("/")[3] for path in wanted] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def test_a_stored_map_is_the_map_to_a_step_of_its_own(room: Room) -> None:
    pixels = picture_for(room)
    for layer in ("conv1", "pool5", "fc8"):
        about, content = stored_maps(room, pixels, layer)
        stored = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        (height, width), columns = about["tile"], about["columns"]
        for channel, largest in enumerate(about["largest"]):
            own = see.one_map(room, pixels, layer, channel)
            if (height, width) == (1, 1):
                assert [[largest]] == pytest.approx(np.array(own["values"]), rel=1e-4)
                continue
            low, top, left = about["smallest"][channel], channel // columns * height, channel % columns * width
            values = low + stored[top : top + height, left : left + width] * ((largest - low) / 255)
            assert values == pytest.approx(np.array(own["values"]), abs=(largest - low) / 500)
            assert (about["strongest"][channel], about["boxes"][channel]) == (tuple(own["strongest"]), own["box"])
            assert largest == pytest.approx(own["largest"], rel=1e-4)


def test_channels_are_ranked_by_the_pictures_in_turn() -> None:
    assert ranked([[0.0, 5.0, 3.0, 4.0], [9.0, 8.0, 1.0, 0.0]]) == [1, 0, 3, 2]


def test_units_that_do_not_fit_are_left_out_from_the_weakest(
    room: Room, pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export(room, tmp_path / "whole", pictures)
    monkeypatch.setattr(exporting, "LIMIT", whole.bytes - 4_000)
    done = export(room, tmp_path / "site", pictures)
    assert done.bytes <= whole.bytes - 4_000
    assert 0 < done.units < whole.units
    assert done.left_out == [
        f"what {whole.units - done.units} of the {whole.units} units look for, those that these pictures excite least"
    ]
    start = start_of(tmp_path / "site")
    first = start["json"]["/api/samples"]["samples"][0]["picture"]
    strongest = int(np.argmax(see.maps(room, room.predictor.pixels(pictures[0]), "conv5")["largest"]))
    assert f"/api/pictures/{first}/maps/norm1" in start["later"]
    assert f"/api/units/conv5/{strongest}" in start["later"]


def test_maps_of_stages_without_weights_go_before_pictures_do(
    room: Room, pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    export(room, site, pictures)
    sizes = [len((site / f"pictures/{n}.js").read_bytes()) for n in (1, 2)]
    images = sum(len(file.read_bytes()) for file in site.glob("pictures/*.webp"))
    monkeypatch.setattr(exporting, "FOR_PICTURES", sum(sizes) + images - 10_000)
    done = export(room, site, pictures)
    assert done.left_out == ["maps of norm1, pool1, norm2, pool2, pool5"]
    assert "/maps/norm1" not in (site / "site.js").read_text()
    monkeypatch.setattr(exporting, "FOR_PICTURES", (sum(sizes) + images) * 3 // 4 - 10_000)
    with pytest.raises(
        UsageError, match="1 of these pictures fit into the 30 MB of an exported site; name fewer with --pictures"
    ):
        export(room, site, pictures)
    assert "/maps/conv1" in (site / "site.js").read_text()  # the earlier one is still there


def test_what_is_wrong_is_said_before_anything_is_written(room: Room, pictures: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no picture to show: name some with --pictures"):
        export(room, tmp_path / "site")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        export(room, tmp_path / "site", [*pictures, tmp_path / "broken.png"])
    assert not (tmp_path / "site").exists()


def test_only_an_export_that_nobody_changed_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, content = tmp_path / "site", Site().all_files()
    folder.mkdir()
    require_free(folder)  # empty
    write(content, folder)
    require_free(folder)
    write({**content, "more.txt": b""}, folder)
    assert (folder / "more.txt").exists()
    with pytest.raises(
        UsageError, match=r"site holds more\.txt, which was not exported; name another folder, or remove this one"
    ):
        require_free(folder)
    write({"pictures/1.js": b"", **content}, folder)
    (folder / "drafts").mkdir()
    with pytest.raises(UsageError, match="site holds drafts, which was not exported"):
        require_free(folder)
    write(content, folder)
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="is the folder that you are in; name another for --export"):
        require_free(Path())
    monkeypatch.chdir(tmp_path)
    (folder / "index.html").write_text("mine")
    with pytest.raises(UsageError, match=r"index\.html was changed after it was exported"):
        require_free(folder)
    (folder / "export.json").unlink()
    with pytest.raises(UsageError, match="holds files that are no exported site"):
        require_free(folder)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file; --export names a folder"):
        require_free(tmp_path / "file")

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("alexnet.page.site.write_bytes", full)
    with pytest.raises(AlexNetError, match=r"not exported: .*No space left on device"):
        write(content, folder)
    assert (folder / "index.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "site"]


# The page ------------------------------------------------------------------------------------------------------------


def test_no_two_modules_give_one_name_to_different_things() -> None:
    declared = r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)"
    names = [name for file in STATIC.glob("js/*.js") for name in re.findall(declared, file.read_text("utf-8"), re.M)]
    assert sorted(names) == sorted(set(names))
    script = joined(STATIC / "js", "main.js")
    assert not re.search(r"^(import|export)\b", script, re.M)


def test_the_page_of_a_site_loads_nothing_by_an_absolute_path() -> None:
    html = Site().all_files()["index.html"].decode()
    assert not re.search(r"""(src|href)="/""", html)
    assert html.index("Content-Security-Policy") < html.index("<script")


def test_data_is_data_in_a_script_and_in_markup() -> None:
    assert literal([HOSTILE, "\u2028", "\ud800"]) == (
        '["\\u003c/script>\\u003cscript>alert(1)\\u003c/script>","\\u2028","\\ud800"]'
    )


@pytest.mark.parametrize(("language", "width", "scheme"), [("en", DESK, "light"), ("zh", PHONE, "dark")])
def test_a_site_is_opened_as_a_file(
    chromium: Any, room: Room, pictures: list[str], tmp_path: Path, language: str, width: int, scheme: str
) -> None:
    hostile = (HOSTILE, "猫", "__proto__", *room.predictor.classes[3:])
    vars(room.subject)["predictor"] = replace(room.predictor, classes=hostile)
    export(room, tmp_path / "site", pictures)
    pixels = room.predictor.pixels(pictures[1])
    with visited(
        chromium, (tmp_path / "site").as_uri(), "/index.html", language=language, width=width, scheme=scheme
    ) as page:
        settle(page)
        page.get_by_role("button", name="猫").click()
        page.locator("#stage-conv2").click()
        settle(page)
        assert HOSTILE in page.locator("[data-part=answers]").first.inner_text()
        page.locator("[data-channel='3']").first.click()
        settle(page)
        own = see.one_map(room, pixels, "conv2", 3)
        y, x = own["strongest"]
        reading = page.locator("[data-part=reading]").inner_text()
        assert [str(y), str(x), f"{own['largest']:.3g}"] == re.findall(r"[\d.]*\d", reading)[:3]
        assert faint_or_nameless(page) == []
        page.locator("a.permanent").click()
        settle(page)
        assert page.url.endswith("index.html#/unit/conv2/3")
        page.reload()
        settle(page)
        assert "conv2" in page.locator("main h1").inner_text()
        assert page.get_by_text(WORDS[language]["unit.optimal_left_out"]).is_visible()
        first = see.one_map(room, room.predictor.pixels(pictures[0]), "conv2", 3)  # of the picture that is shown first
        assert f"{first['largest']:.3g}" in page.locator("[data-part=reading]").inner_text()


def test_the_verb_says_what_it_wrote(
    room: Room, pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = room.predictor
    save_model_folder(tmp_path / "net", net.model, net.name, net.preprocessing, net.classes, net.mean)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # the second time over the first
        assert serve(["net", "--export", "site", "--pictures", *pictures, "--device", "cpu"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"site: 2 pictures and 79 units in {len(everything(tmp_path / 'site')) / 1e6:.1f} MB",
            "Open its file index.html in a browser, or put the folder on a web host.",
        ]
    assert str(tmp_path).encode() not in everything(tmp_path / "site")
