"""Rot: single bits flipped, files cut, blocks zeroed, in everything a set, a checkpoint and a model folder consist of.

A case is damage to one file of a folder that was sound, and what the reader then says. It is *detected* if the reader
refuses it and names the file; *harmless* if what is read is what was there (the newline at the end of a JSON file); and
*silent* if something else is read without a word, which must not happen.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.core.errors import AlexNetError, DataError
from alexnet.data.check import check
from alexnet.data.shards import Store
from alexnet.models.folder import load_model_folder
from alexnet.training.checkpoint import load_checkpoint
from targets import checkpoint, checkpoint_bytes, contents, model_bytes, model_folder, packed_set, read_all

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
BLOCK = 4096
HEADER = 128
"""Of a file of packed pixels."""


@dataclass(frozen=True)
class Damage:
    kind: str
    """flip, cut, zeros, missing, pointer (of git-lfs) or other (the file of another folder)."""
    file: str
    content: bytes | None
    """Of the damaged file; None if it is gone."""
    at: int = 0
    """The byte that was flipped."""


@dataclass
class Tally:
    cases: Counter[str] = field(default_factory=Counter)
    """By kind of damage."""
    detected: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    """By kind and file."""
    images_named: int = 0
    """Cases in which one stored image was hit and the reader named it."""
    faults: list[str] = field(default_factory=list)
    """Silent, badly named, or of another class than the documented one."""
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        return {
            "cases": dict(sorted(self.cases.items())),
            "detected_and_named": dict(sorted(self.detected.items())),
            "harmless": dict(sorted(self.harmless.items())),
            "images_hit_and_named": self.images_named,
            "silent_or_unnamed": len(self.faults),
            "seconds": round(self.seconds, 1),
        }


def damages(files: dict[str, bytes], flips: int, cuts: int, seed: int, blocks: int = 0) -> Iterator[Damage]:
    """Half of the flips are in a file drawn first, so that small ones are hit as well; the others in a byte drawn from all.
    The cuts begin with 0, 1, 10, a half and all but one byte of each file."""
    draw, names = random.Random(seed), list(files)
    sizes = [len(files[name]) for name in names]
    for i in range(flips):
        name = draw.choice(names) if i % 2 else draw.choices(names, sizes)[0]
        at = draw.randrange(len(files[name]))
        damaged = bytearray(files[name])
        damaged[at] ^= 1 << draw.randrange(8)
        yield Damage("flip", name, bytes(damaged), at)
    few = [(name, n) for name in names for n in {0, 1, 10, len(files[name]) // 2, len(files[name]) - 1}]
    few = sorted((name, n) for name, n in few if n < len(files[name]))
    draw.shuffle(few)
    while len(few) < cuts:
        name = draw.choice(names)
        few.append((name, draw.randrange(len(files[name]))))
    for name, n in few[:cuts]:
        yield Damage("cut", name, files[name][:n])
    while blocks:
        name = draw.choices(names, sizes)[0]
        start = draw.randrange(0, len(files[name]), BLOCK)
        end = min(start + BLOCK, len(files[name]))
        damaged = files[name][:start] + bytes(end - start) + files[name][end:]
        if damaged != files[name]:
            blocks -= 1
            yield Damage("zeros", name, damaged)


def whole_files(files: dict[str, bytes], others: dict[str, bytes]) -> Iterator[Damage]:
    """Each file gone, each a pointer that git-lfs left in its place, and each that of ``others`` of the same kind."""
    for name in files:
        yield Damage("missing", name, None)
        yield Damage("pointer", name, LFS_POINTER)
        if others.get(name, files[name]) != files[name]:
            yield Damage("other", name, others[name])


def try_all(
    folder: Path, sound: dict[str, bytes], cases: Iterator[Damage], examine: Callable[[Damage, Tally], str]
) -> Tally:
    """Each case on ``folder``, which is sound before and after. ``examine`` returns ``detected`` or ``harmless``, or says what
    is wrong."""
    tally, start = Tally(), time.perf_counter()
    for damage in cases:
        file = folder / damage.file
        if damage.content is None:
            file.unlink()
        else:
            file.write_bytes(damage.content)
        tally.cases[damage.kind] += 1
        try:
            found = examine(damage, tally)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        if found == "detected":
            tally.detected[damage.kind] += 1
        elif found == "harmless":
            tally.harmless[f"{damage.kind} in {damage.file}"] += 1
        else:
            tally.faults.append(f"{damage.kind} in {damage.file} at {damage.at}: {found}")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(sound[damage.file])
    tally.seconds = time.perf_counter() - start
    return tally


# --- packed sets ------------------------------------------------------------------------------------------------------


def rot_packed(folder: Path, store: Store, flips: int, cuts: int, seed: int, blocks: int = 0, side: int = 16) -> Tally:
    """Damage to every file of a packed set, read by ``check`` and as training reads it."""
    path = packed_set(folder / "set", store, side=side).path
    others = contents(packed_set(folder / "other", store, side=side, first_image=500).path)
    sound, before = contents(path), read_all(path)
    offsets = {split: _offsets(path, split, store, side) for split in ("train", "val")}

    def examine(damage: Damage, tally: Tally) -> str:
        reports = check(path)["faults"]
        try:
            found = read_all(path)
        except DataError as error:
            if Path(damage.file).name not in str(error):
                return f"the file is not named: {error}"
            hit = _image_hit(damage, offsets)
            if hit is None:
                return "detected" if reports else "check finds nothing"
            split, image, name = hit
            said = " ".join(f"{fault['path']} {fault['reason']}" for fault in reports)
            for text in (str(error), said):
                if not re.search(rf"{split}\.images\.\w+: image {image} \({re.escape(name)}\)", text):
                    return f"image {image} is not named: {text}"
            if len(reports) != 1:
                return f"{len(reports)} images are named for one that was hit"
            tally.images_named += 1
            return "detected"
        if found != before:
            return "silent: other data without a word"
        if reports:  # such as another spelling of the type in the header: `check` compares every byte
            return "detected" if damage.file in str(reports) else f"the file is not named: {reports}"
        return "harmless" if _same_json(damage, sound) else "silent: neither is the file sound nor is anything said"

    cases = [*damages(sound, flips, cuts, seed, blocks), *whole_files(sound, others)]
    return try_all(path, sound, iter(cases), examine)


def _offsets(path: Path, split: str, store: Store, side: int) -> tuple[list[int], list[str]]:
    """The byte at which each image begins, and behind the last; and their names."""
    names = [json.loads(line) for line in (path / f"{split}.paths.jsonl").read_text().splitlines()]
    if store == "jpeg":
        return np.load(path / f"{split}.offsets.npy", allow_pickle=False).tolist(), names
    return [HEADER + i * side * side * 3 for i in range(len(names) + 1)], names


def _image_hit(damage: Damage, offsets: dict[str, tuple[list[int], list[str]]]) -> tuple[str, int, str] | None:
    """Split, number and name of the one image in which a bit was flipped."""
    split, _, kind = damage.file.partition(".")
    if damage.kind != "flip" or not kind.startswith("images."):
        return None
    starts, names = offsets[split]
    image = next((i for i in range(len(names)) if starts[i] <= damage.at < starts[i + 1]), None)
    return None if image is None else (split, image, names[image])


def _same_json(damage: Damage, sound: dict[str, bytes]) -> bool:
    """Whether a JSON file says what it said."""
    if damage.content is None or not damage.file.endswith(".json"):
        return False
    try:
        return bool(json.loads(damage.content) == json.loads(sound[damage.file]))
    except ValueError:
        return False


# --- checkpoints ------------------------------------------------------------------------------------------------------


def rot_checkpoint(folder: Path, flips: int, cuts: int, seed: int, blocks: int = 0) -> Tally:
    """Damage to the newest of two checkpoints and to the pointer. The older one takes its place, and the line that says so
    names the file."""
    checkpoint(checkpoint(folder, 30), 60)
    files = contents(folder)
    sound = {name: content for name, content in files.items() if not name.startswith("step-30/")}
    others = {name: files[name.replace("60", "30")] for name in sound} | {"last": b"step-30\n"}
    states = {}
    for step in (30, 60):
        (folder / "last").write_text(f"step-{step}\n")
        found, _ = load_checkpoint(folder)
        assert found is not None
        states[step] = checkpoint_bytes(found)

    def examine(damage: Damage, _tally: Tally) -> str:
        try:
            found, said = load_checkpoint(folder)
        finally:
            aside = folder / "damaged-step-60"
            if aside.exists():
                aside.rename(folder / "step-60")
            if damage.file != "last":
                (folder / "last").write_text("step-60\n")
        if found is None or checkpoint_bytes(found) != states[found.step]:
            return "silent: another state without a word"
        if damage.file == "last":  # it names a sound checkpoint, or none: nothing is lost but an interval
            return "harmless"
        name = Path(damage.file).name
        if found.step == 30:
            named = len(said) == 1 and "step-60" in said[0] and (name in said[0] or "manifest.json" in said[0])
            return "detected" if named else f"not named: {said}"
        return "harmless" if _same_json(damage, sound) else "silent: not noticed"

    cases = [*damages(sound, flips, cuts, seed, blocks), *whole_files(sound, others)]
    return try_all(folder, sound, iter(cases), examine)


# --- model folders ----------------------------------------------------------------------------------------------------


def rot_model(folder: Path, flips: int, cuts: int, seed: int, blocks: int = 0) -> Tally:
    """Damage to every file of a model folder. It is refused, and the file is named."""
    path, others = model_folder(folder / "model"), contents(model_folder(folder / "other", seed=1))
    sound, before = contents(path), model_bytes(load_model_folder(path))

    def examine(damage: Damage, _tally: Tally) -> str:
        try:
            found = load_model_folder(path)
        except AlexNetError as error:
            named = damage.file in str(error) or "not that in config.json" in str(error)
            return "detected" if named else f"the file is not named: {error}"
        if model_bytes(found) != before:
            return "silent: another model without a word"
        return "harmless" if _same_json(damage, sound) else "silent: not noticed"

    cases = [*damages(sound, flips, cuts, seed, blocks), *whole_files(sound, others)]
    return try_all(path, sound, iter(cases), examine)
