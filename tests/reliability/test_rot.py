"""Single bits, cut ends, lost blocks and misplaced files: found, and named, before anything is learned or measured from them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, DataError
from alexnet.data.check import check
from alexnet.data.loader import batches
from alexnet.data.packed import open_packed, seal
from alexnet.data.shards import Store
from alexnet.models.folder import load_model_folder
from alexnet.training.checkpoint import load_checkpoint
from rot import Tally, rot_checkpoint, rot_model, rot_packed
from targets import checkpoint, contents, model_folder, packed_set, read_all

STORES: tuple[Store, ...] = ("pixels", "jpeg")


def all_found(tally: Tally, flips: int, cuts: int) -> None:
    assert tally.faults == []
    assert tally.cases["flip"] == flips
    assert tally.cases["cut"] == cuts
    assert tally.detected.total() + tally.harmless.total() == tally.cases.total()
    assert all(name.startswith("cut in ") or name.endswith(" in last") for name in tally.harmless)


@pytest.mark.parametrize("store", STORES)
def test_rot_in_a_packed_set_is_found(store: Store, in_memory: Path) -> None:
    tally = rot_packed(in_memory, store, 60, 20, seed=1, blocks=3)
    all_found(tally, 60, 20)
    assert tally.images_named > 10


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
def test_a_thousand_flipped_bits_in_a_packed_set_are_found(store: Store, in_memory: Path) -> None:
    tally = rot_packed(in_memory, store, 1000, 200, seed=2012, blocks=20)
    all_found(tally, 1000, 200)
    assert tally.images_named > 200


def test_rot_in_checkpoints_and_model_folders_is_found(in_memory: Path) -> None:
    all_found(rot_checkpoint(in_memory / "checkpoint", 60, 20, seed=1, blocks=3), 60, 20)
    all_found(rot_model(in_memory / "model", 40, 20, seed=1, blocks=3), 40, 20)


@pytest.mark.long
def test_five_hundred_flipped_bits_in_checkpoints_and_in_model_folders_are_found(in_memory: Path) -> None:
    all_found(rot_checkpoint(in_memory / "checkpoint", 500, 100, seed=2012, blocks=20), 500, 100)
    all_found(rot_model(in_memory / "model", 500, 100, seed=2012, blocks=20), 500, 100)


# Packed sets ----------------------------------------------------------------------------------------------------------


def reseal(folder: Path, **files: bytes) -> None:
    """New contents with fitting checksums: what a person with good intentions and an editor might leave."""
    meta = json.loads((folder / "meta.json").read_text())
    del meta["sha256"]
    for key, content in files.items():
        name = key.replace("__", ".")
        (folder / name).write_bytes(content)
        meta["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "meta.json").write_text(json.dumps(seal(meta)))


@pytest.mark.parametrize("store", STORES)
def test_a_labels_file_that_is_one_short_is_found(store: Store, in_memory: Path) -> None:
    folder = packed_set(in_memory / "set", store).path
    labels = np.load(folder / "train.labels.npy", allow_pickle=False)
    np.save(folder / "train.labels.npy", labels[:-1])
    with pytest.raises(DataError, match=r"train\.labels\.npy: 200 bytes, but meta\.json says 208"):
        open_packed(folder)
    reseal(folder, train__labels__npy=(folder / "train.labels.npy").read_bytes())
    with pytest.raises(DataError, match=r"train\.labels\.npy: int64 \(9,\), but meta\.json says int64 \(10,\)"):
        open_packed(folder)
    np.save(folder / "train.labels.npy", labels + 1)
    reseal(folder, train__labels__npy=(folder / "train.labels.npy").read_bytes())
    with pytest.raises(DataError, match=r"train\.labels\.npy: labels 1 to 3 of 3 classes"):
        open_packed(folder)


def test_a_list_of_names_that_is_one_short_or_long_is_found(in_memory: Path) -> None:
    folder = packed_set(in_memory / "set", "pixels").path
    names = (folder / "val.paths.jsonl").read_bytes()
    for wrong in (names[: names.rindex(b'"', 0, -2)], names + b'"more"\n', b"", b"7\n" * 4, b"[" * 100_000):
        reseal(folder, val__paths__jsonl=wrong)
        with pytest.raises(DataError, match=r"val\.paths\.jsonl: not the names of 4 images"):
            _ = open_packed(folder).split("val").paths


def test_an_image_is_named_even_where_its_name_is_lost(in_memory: Path) -> None:
    folder = packed_set(in_memory / "set", "pixels").path
    for name in ("train.images.npy", "train.paths.jsonl"):
        content = bytearray((folder / name).read_bytes())
        content[-30] ^= 4
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"train\.images\.npy: image 9 \(its name is lost: train\.paths\.jsonl is dama"):
        open_packed(folder).split("train").read(np.arange(10))


def test_a_set_without_its_meta_file_is_not_taken_for_a_folder_of_images(in_memory: Path) -> None:
    folder = packed_set(in_memory / "set", "jpeg").path
    (folder / "meta.json").unlink()
    (fault,) = check(folder)["faults"]
    assert "meta.json: missing; remove the folder and prepare it again" in fault["reason"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": "cat"}, "its classes are no list of names"),
        ({"store": "pickle"}, "its store or its channels are unknown"),
        ({"size": 0}, "its size is not 1 to 4096"),
        ({"size": "16"}, "its size is not 1 to 4096"),
        ({"counts": {"../x": {"images": 3}}}, "its splits are not some of train, val and test"),
        ({"counts": {"train": {"images": -3}}}, "a split does not say how many images it has"),
        ({"counts": {"train": {"images": 1 << 70}}}, "a split does not say how many images it has"),
        ({"files": {}}, "files of the set are not listed"),
        ({"rejected": [{"path": 3}]}, "a rejected file has no path or no reason"),
    ],
)
def test_an_edited_meta_file_with_a_fitting_checksum_is_refused(change: dict, said: str, in_memory: Path) -> None:
    folder = packed_set(in_memory / "set", "pixels").path
    meta = json.loads((folder / "meta.json").read_text()) | change
    del meta["sha256"]
    (folder / "meta.json").write_text(json.dumps(seal(meta)))
    with pytest.raises(DataError, match=said):
        open_packed(folder)


def test_files_outside_the_folder_are_not_files_of_the_set(in_memory: Path) -> None:
    folder = packed_set(in_memory / "set", "pixels").path
    (in_memory / "secret").write_bytes(b"x")
    meta = json.loads((folder / "meta.json").read_text())
    del meta["sha256"]
    meta["files"]["../secret"] = meta["files"]["mean.npy"]
    (folder / "meta.json").write_text(json.dumps(seal(meta)))
    with pytest.raises(DataError, match=r"'\.\./secret' is no file of a packed set"):
        open_packed(folder)


@pytest.mark.parametrize("store", STORES)
def test_no_batch_holds_a_damaged_image(store: Store, in_memory: Path) -> None:
    """As training reads: in any order, ahead, by threads."""
    folder = packed_set(in_memory / "set", store, num_train=40).path
    sound = open_packed(folder).split("train").read(np.arange(40))
    order_N = np.random.default_rng(0).permutation(40)
    file = next(folder.glob("train.images.*"))
    whole = file.read_bytes()
    for position in (3, 20, 39):
        image = int(order_N[position])
        start = 128 + image * 768 if store == "pixels" else int(np.load(folder / "train.offsets.npy")[image])
        damaged = bytearray(whole)
        damaged[start + 200] ^= 0x10
        file.write_bytes(damaged)
        seen: list[int] = []

        def read_all_batches(seen: list[int] = seen) -> None:
            for batch in batches(open_packed(folder).split("train"), order_N, 8, workers=2):
                assert np.array_equal(np.asarray(batch.pixels_BSSC), sound[batch.image_B])
                seen += batch.image_B.tolist()

        with pytest.raises(DataError, match=rf"image {image} \(train/\w+/{image:03d}\.png\) is damaged"):
            read_all_batches()
        assert image not in seen
        assert seen == order_N[: len(seen)].tolist()
        file.write_bytes(whole)


@pytest.mark.long
def test_the_verbs_stop_at_a_damaged_image_and_name_it(in_memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Trained on a sound set, then train and evaluate with one bit flipped: exit 4, one line."""
    folder = packed_set(in_memory / "set", "pixels", side=36, num_train=12).path
    small = "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16"
    small += " --model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 --epochs 1"
    train = ["train", "quickstart", "--data", str(folder), *small.split(), "--batch-size", "4", "--device", "cpu"]

    def alexnet(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit:
            main(list(arguments))
        return int(exit.value.code or 0), capfd.readouterr().err

    assert alexnet(*train, "--out", str(in_memory / "run"))[0] == 0
    for split, verb in (
        ("train", (*train, "--out", str(in_memory / "again"))),
        ("val", ("evaluate", str(in_memory / "run"))),
    ):
        file = folder / f"{split}.images.npy"
        whole = bytearray(file.read_bytes())
        whole[128 + 2 * 36 * 36 * 3 + 1000] ^= 1
        file.write_bytes(whole)
        code, said = alexnet(*verb)
        assert code == 4
        assert f"{split}.images.npy: image 2 ({split}/emu/002.png) is damaged" in said.splitlines()[-1]
    assert not list((in_memory / "again").glob("model"))


# Checkpoints and model folders ----------------------------------------------------------------------------------------


def test_no_sound_checkpoint_at_all_is_said(in_memory: Path) -> None:
    run = checkpoint(checkpoint(in_memory, 30), 60)
    for step in (30, 60):
        file = run / f"step-{step}" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        AlexNetError, match=r"no sound checkpoint .*model\.safetensors: [\d,]+ bytes, but manifest\.json says"
    ):
        load_checkpoint(run)


def test_checkpoints_of_two_steps_mixed_are_not_loaded(in_memory: Path) -> None:
    """Any choice of files of two steps but the two whole ones."""
    run = checkpoint(checkpoint(in_memory, 30), 60)
    old, new = contents(run / "step-30"), contents(run / "step-60")
    names = sorted(new)
    for choice in range(1, 2 ** len(names)):
        for i, name in enumerate(names):
            (run / "step-60" / name).write_bytes((old if choice >> i & 1 else new)[name])
        found, said = load_checkpoint(run)
        assert found is not None
        assert (found.step, len(said)) == (30, 1), choice
        (run / "damaged-step-60").rename(run / "step-60")
        (run / "last").write_text("step-60\n")


def test_a_file_that_no_manifest_lists_is_not_loaded(in_memory: Path) -> None:
    run = checkpoint(checkpoint(in_memory, 30), 60)
    shutil.copy(run / "step-30" / "model.safetensors", run / "step-60" / "average.safetensors")
    found, said = load_checkpoint(run)
    assert found is not None
    assert found.step == 30
    assert "manifest.json does not list the files that are there (average.safetensors)" in said[0]


def test_an_empty_checkpoint_or_model_folder_is_refused(in_memory: Path) -> None:
    run = checkpoint(checkpoint(in_memory / "run", 30), 60)
    shutil.rmtree(run / "step-60")
    (run / "step-60").mkdir()
    found, said = load_checkpoint(run)
    assert found is not None
    assert found.step == 30
    assert "step-60/manifest.json: no such file" in said[0]
    (in_memory / "model").mkdir()
    with pytest.raises(AlexNetError, match=r"no config\.json"):
        load_model_folder(in_memory / "model")


def test_a_pipe_or_a_device_in_place_of_a_file_is_not_waited_for(in_memory: Path) -> None:
    model = model_folder(in_memory / "model")
    for name, place in (("classes.json", "/dev/zero"), ("model.safetensors", "")):
        sound = (model / name).read_bytes()
        (model / name).unlink()
        if place:
            (model / name).symlink_to(place)
        else:
            os.mkfifo(model / name)
        with pytest.raises(AlexNetError, match=rf"{name}: not a regular file"):
            load_model_folder(model)
        (model / name).unlink()
        (model / name).write_bytes(sound)
    packed = packed_set(in_memory / "set", "pixels").path
    (packed / "meta.json").rename(in_memory / "meta.json")
    os.mkfifo(packed / "meta.json")
    with pytest.raises(DataError, match=r"meta\.json"):
        read_all(packed)
