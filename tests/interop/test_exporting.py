"""Every export, read back by the program that it is for, and refused where it does not answer as the network does."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.interop import exporting
from alexnet.interop.exporting import TARGETS, Exported, export
from alexnet.models import create_model, default_preprocessing
from alexnet.models.folder import save_model_folder
from shared import content

SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2", "hub": ""}
CLASSES = ["<b>green*", "blue", "red"]
NEEDS_ONNX = pytest.mark.skipif(not all(map(find_spec, ("onnx", "onnxruntime"))), reason="needs the extra onnx")


@pytest.fixture(scope="module")
def owt(tmp_path_factory) -> Path:
    """A model folder of the network that torchvision has, with two classes."""
    path = tmp_path_factory.mktemp("owt") / "model"
    model = create_model("alexnet_owt", num_classes=2)
    save_model_folder(path, model, "alexnet_owt", default_preprocessing("alexnet_owt"), ["cat", "dog"])
    return path


def state_of(model: Path) -> dict[str, torch.Tensor]:
    return alexnet.load(model).model.state_dict()


@pytest.mark.parametrize("to", [pytest.param(to, marks=NEEDS_ONNX if to == "onnx" else ()) for to in TARGETS[1:]])
def test_an_export_is_checked_on_the_images_that_the_run_held_out(run, tmp_path, to, capsys):
    out = tmp_path / f"模型{SUFFIX.get(to, '.file')}"
    with pytest.raises(SystemExit) as exit:
        main(["export", str(run), "--to", to, "--out", str(out)])
    printed = capsys.readouterr()
    assert exit.value.code == 0, printed.err
    first, second, *_, last = printed.out.splitlines()
    assert first == "checked on 12 pictures, of photos (val)"
    assert second.endswith("the same first answer for 12 of 12")
    assert last.startswith(f"{to}: {out}")
    assert ("score: 0, of" in second) == (to in ("safetensors", "hub"))
    assert [*tmp_path.iterdir()] == [out]


def test_the_documentation_shows_the_published_export():
    root = Path(__file__).parents[2]
    document = json.loads((root / "results" / "export.json").read_text(encoding="utf-8"))
    assert {row["n"] for row in document["rows"]} == {100}
    (row,) = (one for one in document["rows"] if one["to"] == "onnx" and not one.pop("with_preprocessing"))
    shown = Exported(**row | {"file": Path(row["file"]), "environment": document["environment"]}).lines
    assert "\n".join(shown) in (root / "docs" / "export.md").read_text(encoding="utf-8")


def test_export_takes_the_options_of_the_machine(run, photos, tmp_path, capsys):
    words = ["export", str(run), "--to", "safetensors", "--out", str(tmp_path / "new"), "--pictures", str(photos)]
    for wrong, says in (
        ("--device=gpu", "no such device"),
        ("--workers=-1", "at least 0"),
        ("--threads=0", "at least 1"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*words, wrong])
        assert says in capsys.readouterr().err
    (tmp_path / "my.yaml").write_text("device: cpu\nworkers: 2\n")
    with pytest.raises(SystemExit, match="0"):
        main([*words, "-c", str(tmp_path / "my.yaml"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["n"] == len([*photos.rglob("*.png")])
    assert document["environment"]["device"] == "cpu"
    assert document["environment"]["torch"] == torch.__version__


def test_torchvision_gets_a_state_dict_that_comes_back_bit_for_bit(owt, tmp_path):
    out = tmp_path / "alexnet.pth"
    done = export(owt, "torchvision", out, pictures=Image.new("RGB", (300, 260), "red"))
    assert (done.n, done.difference, done.same_first) == (1, 0.0, 1)
    state = torch.load(out, weights_only=True)
    assert list(state) == [
        f"{part}.{i}.{kind}"
        for part, places in (("features", (0, 3, 6, 8, 10)), ("classifier", (1, 4, 6)))
        for i in places
        for kind in ("weight", "bias")
    ]
    assert state["classifier.6.weight"].shape == (2, 4096)
    alexnet.import_weights(out, tmp_path / "back", classes=["cat", "dog"])
    ours, back = state_of(owt), state_of(tmp_path / "back")
    assert all(torch.equal(ours[key], back[key]) for key in ours)


def test_torchvision_cannot_hold_other_networks_and_the_line_says_what_differs(run, tmp_path):
    with pytest.raises(AlexNetError, match="cannot hold this network, whose input_size is 32 and not 224"):
        export(run, "torchvision", tmp_path / "new.pth")
    assert [*tmp_path.iterdir()] == []


def test_safetensors_come_back_as_the_model_with_its_classes_and_its_mean_image(run, photos, tmp_path):
    out = tmp_path / "weights.safetensors"
    export(run, "safetensors", out)
    ours = alexnet.load(run)
    found = safetensors.torch.load_file(out)
    assert all(torch.equal(found[key], tensor) for key, tensor in ours.model.state_dict().items())
    with safetensors.safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["classes"]) == CLASSES
        assert file.metadata()["format"] == "pt"
    alexnet.import_weights(out, tmp_path / "back")
    picture = next((photos / "val").rglob("*.png"))
    assert alexnet.load(tmp_path / "back").predict(picture).answers == ours.predict(picture).answers
    with pytest.raises(UsageError, match="says that its network is alexnet_2012; leave --network out"):
        alexnet.import_weights(out, tmp_path / "other", network="zfnet")


def test_a_program_of_torch_export_takes_batches_of_any_size(run, tmp_path):
    out = tmp_path / "program.pt2"
    done = export(run, "torch-export", out)
    assert done.difference <= done.allowed == pytest.approx(1e-4 * done.largest_score)
    extra = {"classes": ""}
    program = torch.export.load(out, extra_files=extra).module()
    model, x_BCHW = alexnet.load(run).model, torch.randn(5, 3, 32, 32)
    for batch in (x_BCHW, x_BCHW[:1]):
        torch.testing.assert_close(program(batch), model(batch), rtol=1e-4, atol=1e-5)
    assert json.loads(extra["classes"]) == CLASSES


@NEEDS_ONNX
def test_onnx_is_one_sound_file_that_says_its_classes_and_its_input(run, tmp_path):
    import onnx
    import onnxruntime

    out = tmp_path / "network.onnx"
    export(run, "onnx", out)
    assert [*tmp_path.iterdir()] == [out]
    onnx.checker.check_model(str(out), full_check=True)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    entries = session.get_modelmeta().custom_metadata_map
    assert json.loads(entries["classes"]) == CLASSES
    assert json.loads(entries["preprocessing"])["resize"] == 36
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
    assert [node.op_type for node in onnx.load(out).graph.node].count("LRN") == 2


@NEEDS_ONNX
@pytest.mark.parametrize("wide", [{}, {"channels": 1, "mean": "none"}])
def test_onnx_with_preprocessing_names_photographs_of_any_size(tmp_path, wide):
    import onnxruntime

    small = {"input_size": 79, "conv_channels": (8, 8, 8, 8, 8), "fc_units": (16, 16), "num_classes": 3, "init": "he"}
    model = create_model("alexnet_2012", in_channels=wide.get("channels", 3), **small)
    mean = None if wide else np.full((90, 90, 3), 100, np.float32)
    save_model_folder(
        tmp_path / "model", model, "alexnet_2012", Preprocessing(resize=90, crop=79, **wide), ["猫", "狗", "鳥"], mean
    )
    out = tmp_path / "photos.onnx"
    done = export(tmp_path / "model", "onnx", out, with_preprocessing=True)
    assert (done.n, done.same_first) == (24, 24)
    assert "drawn by this program" in done.pictures
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    predictor = alexnet.load(tmp_path / "model")
    for size in ((120, 200), (333, 100), (90, 90)):
        pixels_HWC = np.asarray(Image.radial_gradient("L").resize(size))[..., None].repeat(wide.get("channels", 3), 2)
        names, probabilities, _ = session.run(None, {"pixels": np.stack([pixels_HWC, 255 - pixels_HWC])})
        for i, pixels in enumerate((pixels_HWC, 255 - pixels_HWC)):
            ours = predictor.predict(pixels).answers
            assert names[i].tolist() == [answer.name for answer in ours]
            np.testing.assert_allclose(probabilities[i], [answer.probability for answer in ours], atol=0.01)


def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(run, tmp_path, monkeypatch):
    spoiled = exporting._read_back

    def read(*arguments):
        model = spoiled(*arguments)
        return lambda x_BCHW: model(x_BCHW) + 1e-3

    monkeypatch.setattr(exporting, "_read_back", read)
    for to in ("safetensors", "hub"):
        with pytest.raises(AlexNetError, match=r"not written, because .* differs by 0\.001.* and 0 is allowed"):
            export(run, to, tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


def test_what_cannot_be_exported_is_refused_before_anything_is_written(run, tmp_path):
    kept = content(tmp_path)
    for fields, said in (
        ({"to": "tflite"}, "no export is called tflite; there is torchvision, safetensors, torch-export, onnx, hub"),
        ({"to": "onxx"}, r"no export is called onxx \(perhaps onnx\)"),
        ({"to": "onnx", "out": tmp_path / "new.bin"}, r"want a name ending in \.onnx"),
        ({"to": "torch-export", "out": tmp_path / "new.pt"}, r"want a name ending in \.pt2"),
        ({"to": "hub", "with_preprocessing": True}, "--with-preprocessing is for --to onnx"),
        ({"to": "safetensors", "license": "mit"}, "--license is for the card"),
        ({"to": "safetensors", "out": tmp_path}, "exists; take another --out"),
    ):
        with pytest.raises(UsageError, match=said):
            export(run, **{"out": tmp_path / "new"} | fields)
    assert content(tmp_path) == kept
