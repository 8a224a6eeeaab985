"""The See act of some pictures as files: what goes into a :class:`~alexnet.page.site.Site`, and what fits.

Shape suffixes: P pictures, S rows and columns of a square, C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import time
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.core.console import Bar
from alexnet.core.errors import AlexNetError, UsageError, as_text
from alexnet.data.pictures import image_files
from alexnet.page import samples, see, units
from alexnet.page.images import png, sheet
from alexnet.page.room import Room
from alexnet.page.site import Site, literal, require_free, write
from alexnet.page.worker import Pixels

LIMIT = 30_000_000
"""Most bytes of a site."""
FOR_PICTURES = 20_000_000
"""Most of them for pictures and their maps, so that there is room for units."""
WITH_OPTIMAL = 12
"""Units of each layer that have the image which they want to see: to find it takes a second or two."""
CROP_SIDE, OPTIMAL_SIDE = 64, 160
"""Most pixels that the side of a crop and of such an image keeps."""
OVERHEAD = 700
"""Bytes that a unit takes besides its images and what is said of it: its names in the lists."""


@dataclass(frozen=True)
class Exported:
    """A site that was written."""

    folder: str
    bytes: int
    pictures: int
    units: int
    """Units with more than their map."""
    left_out: list[str]
    """What did not fit."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture, and all that is answered to it."""

    id: str
    label: str
    answers: Mapping[str, Any]
    """By the ends of their paths."""
    images: Mapping[str, bytes]
    maps: Mapping[str, tuple[Mapping[str, Any], bytes]]
    """Of each layer: what is said of its maps, and their sheet."""

    def size(self, layers: Collection[str]) -> int:
        """Bytes that the picture takes with the maps of these layers."""
        maps = sum(len(literal(self.maps[name][0])) + 4 * len(self.maps[name][1]) // 3 for name in layers)
        return maps + len(literal(self.answers)) + sum(map(len, self.images.values()))


def export(room: Room, out: str | Path, pictures: Iterable[str | Path] = ()) -> Exported:
    """Write the See act of a room into the folder ``out``: for these picture files and those in these folders, or else for up to
    eight of the room's images.

    What does not fit into :data:`LIMIT` is left out in this order: maps of stages without weights; pictures, if they were not
    named; units, those first that the pictures excite least. An earlier export is replaced, and stays until this one is whole.

    Raises :class:`UsageError` for a folder that holds something else, where there is no picture, and for more than fit;
    :class:`~alexnet.core.errors.ImageError` for one that cannot be read."""
    folder = Path(out).resolve()
    require_free(folder)
    files, quiet = [*image_files(pictures)], room.subject.machine.quiet
    model = _model(room)
    layers = [stage["name"] for stage in model["stages"] if stage["has_maps"] or stage["has_units"]]
    with_weights = [stage["name"] for stage in model["stages"] if stage["has_units"]]
    given = [*_pictures(room, files)]
    left_out: list[str] = []

    shown: dict[str, Shown] = {}
    with Bar("export", len(given), "pictures", quiet=quiet) as bar:
        for done, (label, pixels_SSC) in enumerate(given, start=1):
            picture = _shown(room, model, layers, label, pixels_SSC)
            if sum(one.size(with_weights) for one in [*shown.values(), picture]) > FOR_PICTURES:
                fit = f"{len(shown)} of these pictures fit into the {LIMIT // 10**6} MB of an exported site"
                if files or not shown:
                    raise UsageError(f"{fit}; name fewer with --pictures")
                left_out.append(f"pictures: {fit}")
                break
            shown.setdefault(picture.id, picture)
            bar.update(done)
    if not shown:
        raise UsageError("there is no picture to show: name some with --pictures")
    if sum(picture.size(layers) for picture in shown.values()) > FOR_PICTURES:
        left_out.append(f"maps of {', '.join(name for name in layers if name not in with_weights)}")
        layers = with_weights

    site = Site()
    chosen = {"samples": [{"picture": picture.id, "label": picture.label} for picture in shown.values()]}
    site.json |= {"/api/model": model, "/api/samples": chosen}
    for number, picture in enumerate(shown.values(), start=1):
        _add_picture(site, picture, layers, f"pictures/{number}")
    with Bar("export: crops", units.progress_of(room)[1], "images", quiet=quiet) as bar, suppress(AlexNetError):
        units.look_through(room, lambda seen, _: bar.update(seen))  # of images that cannot be read each unit says why
    ranks = {name: ranked([picture.maps[name][0]["largest"] for picture in shown.values()]) for name in with_weights}
    with Bar("export", sum(map(len, ranks.values())), "units", quiet=quiet) as bar:
        num_units = _add_units(site, room, ranks, bar)
    if num_units < (num := sum(map(len, ranks.values()))):
        left_out.append(
            f"what {num - num_units:,} of the {num:,} units look for, those that these pictures excite least"
        )
    content = site.all_files()
    write(content, folder)
    return Exported(str(out), sum(map(len, content.values())), len(shown), num_units, left_out)


def _model(room: Room) -> dict[str, Any]:
    """What is said of the model, without what only this machine has."""
    model = see.model(room)
    if model["data"] is not None:
        model["data"]["name"] = Path(model["data"]["name"]).name
    return model | {"index": None}


def webp(content: bytes, *, side: int | None = None, exact: bool = False) -> bytes:
    """A PNG file as a smaller one: brought to at most ``side`` rows, or ``exact`` to the last bit."""
    image: Image.Image = Image.open(io.BytesIO(content))
    file = io.BytesIO()
    if side is not None and image.height > side:
        image = image.resize((round(image.width * side / image.height), side), Image.Resampling.LANCZOS)
    image.save(file, "WEBP", lossless=exact, quality=50 if exact else 80, method=2)
    return file.getvalue()


# Pictures ------------------------------------------------------------------------------------------------------------


def _pictures(room: Room, files: Iterable[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The files, or else the samples of the room: what each is called, and its pixels."""
    for file in files:
        yield as_text(Path(file).stem), room.predictor.pixels(file)
    if not files:
        for pixels, label in samples.samples(room):
            yield label, pixels.array()


def _shown(
    room: Room, model: Mapping[str, Any], layers: Iterable[str], label: str, pixels_SSC: NDArray[np.uint8]
) -> Shown:
    start = time.monotonic()
    about = samples.about(room, pixels_SSC)
    picture = Pixels.of(pixels_SSC).id
    answers: dict[str, Any] = {"": {"picture": picture, **about, "seconds": time.monotonic() - start}}
    images = {
        "/input.png": webp(see.input_png(room, pixels_SSC), exact=True),
        "/square.png": webp(see.square_png(room, pixels_SSC)),
    }
    if about["answers"] is not None:
        answers["/views"] = see.views(room, pixels_SSC)
        top = about["answers"][0]["label"]
        for method in model["methods"]:
            heat = see.saliency(room, pixels_SSC, top, method)
            images[f"/saliency.png?label={top}&method={method}"] = webp(heat)
        if model["methods"]:
            images[f"/occlusion.png?label={top}"] = webp(see.occlusion(room, pixels_SSC, top))
    maps = {layer: stored_maps(room, pixels_SSC, layer) for layer in layers}
    return Shown(id=picture, label=label, answers=answers, images=images, maps=maps)


def stored_maps(room: Room, pixels_SSC: NDArray[np.uint8], layer: str) -> tuple[dict[str, Any], bytes]:
    """What :func:`~alexnet.page.see.maps` says, and the sheet of all maps, in which each has 256 steps of its own, from
    ``smallest`` to ``largest``. With ``strongest`` and ``boxes`` any of them can be told of as
    :func:`~alexnet.page.see.one_map` does. Where a map is a single value, that is ``largest``, and nothing of this is needed."""
    found, map_CHW = see.layer_of(room, layer), see.recorded_maps(room, pixels_SSC)[layer]
    about = see.maps(room, pixels_SSC, layer)
    del about["mean"]
    low_C, high_C = map_CHW.min((1, 2)), map_CHW.max((1, 2))
    about["largest"] = _short(high_C)
    if map_CHW[0].size > 1:
        at_C2 = [divmod(int(map_HW.argmax()), map_HW.shape[1]) for map_HW in map_CHW]
        about["smallest"] = _short(low_C)
        about["strongest"] = at_C2
        about["boxes"] = [see.box_of(room, found, y, x) for y, x in at_C2]
    spread_C = np.where(high_C > low_C, high_C - low_C, 1)
    share_CHW = (map_CHW - low_C[:, None, None]) / spread_C[:, None, None]
    return about, webp(png(sheet(share_CHW, 1.0)), exact=True)


def _short(values: NDArray[np.float32]) -> list[float]:
    """Numbers with five digits, of which the page shows three."""
    return [float(f"{value:.5g}") for value in values.tolist()]


def _add_picture(site: Site, picture: Shown, layers: Iterable[str], name: str) -> None:
    path = f"/api/pictures/{picture.id}"
    for number, (end, content) in enumerate(picture.images.items()):
        site.add_image(path + end, f"{name}-{number}.webp", content)
    answers = {path + end: answer for end, answer in picture.answers.items()}
    sheets = {}
    for layer in layers:
        about, content = picture.maps[layer]
        answers[f"{path}/maps/{layer}"] = about
        sheets[f"{path}/maps/{layer}.png"] = f"data:image/webp;base64,{b64encode(content).decode()}"
    site.add_script(f"{name}.js", answers, sheets)


# Units ---------------------------------------------------------------------------------------------------------------


def ranked(largest_PC: Sequence[Sequence[float]]) -> list[int]:
    """All channels of a layer: first those that are strongest on one of the pictures each, then those that come second there."""
    order_PC = np.argsort(-np.asarray(largest_PC), axis=1, kind="stable")
    return list(dict.fromkeys(order_PC.T.ravel().tolist()))


def _add_units(site: Site, room: Room, ranks: Mapping[str, list[int]], progress: Bar) -> int:
    """What is known of as many units as fit, the layers taking turns: how many there are."""
    said: dict[str, dict[str, Any]] = {layer: {} for layer in ranks}
    bytes_left, num = LIMIT - site.size, 0
    for turn in range(max(map(len, ranks.values()), default=0)):
        for layer, channels in ranks.items():
            if turn >= len(channels):
                continue
            channel = channels[turn]
            unit, images = _unit(room, layer, channel, optimal=turn < WITH_OPTIMAL)
            bytes_left -= len(literal(unit)) + sum(map(len, images.values())) + OVERHEAD
            if bytes_left < 0:
                break
            path = f"/api/units/{layer}/{channel}"
            said[layer][path] = unit
            for name, content in images.items():
                site.add_image(f"{path}/{name}.png", f"units/{layer}/{channel}-{name}.webp", content)
            num += 1
            progress.update(num)
        if bytes_left < 0:
            break
    for layer, answers in said.items():
        if answers:
            site.add_script(f"units/{layer}.js", answers, {})
    return num


def _unit(room: Room, layer: str, channel: int, *, optimal: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What is said of a unit, and its images by their names."""
    unit, images = units.unit(room, layer, channel, optimal), {}
    with suppress(UsageError):  # of other layers than the first convolution
        images["kernel"] = webp(units.kernel_png(room, layer, channel), exact=True)
    if unit["crops"]:
        images["crops"] = webp(units.crops_png(room, layer, channel), side=CROP_SIDE)
    if unit["optimal"] is not None:
        images["optimal"] = webp(units.optimal_png(room, layer, channel), side=OPTIMAL_SIDE)
    return unit, images
