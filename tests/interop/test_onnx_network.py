"""An ONNX file in the place of a model: predict and evaluate answer as the network does, the other verbs say why not, and a
hostile file is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import alexnet
from alexnet.cli import main
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.data.builtin import CLASSES, draw_picture
from alexnet.evaluation import onnx_network
from alexnet.evaluation.onnx_network import open_onnx
from alexnet.interop.exporting import export
from alexnet.models import create_model, default_preprocessing
from alexnet.models.folder import save_model_folder

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402


@pytest.fixture(scope="module")
def files(run, tmp_path_factory) -> dict[str, Path]:
    """The run as ONNX, without and with its preprocessing."""
    root = tmp_path_factory.mktemp("onnx")
    for name, inside in (("input", False), ("pixels", True)):
        export(run, "onnx", root / f"{name}.onnx", with_preprocessing=inside)
    return {name: root / f"{name}.onnx" for name in ("input", "pixels")}


def code_of(*arguments: object) -> object:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return exit.value.code


def probabilities(model: Path, photos: Path, views: str = "1") -> np.ndarray:
    found = alexnet.load(model).predict(photos / "val", views=views, top_k=3)
    return np.array([[a.probability for a in sorted(one.answers, key=lambda a: a.label)] for one in found])


@pytest.mark.parametrize(
    ("kind", "views", "allowed"), [("input", "1", 1e-5), ("input", "10", 1e-5), ("pixels", "1", 1e-5)]
)
def test_its_answers_are_those_of_the_run(files, run, photos, kind, views, allowed):
    own = probabilities(run, photos, views)
    assert own.shape == (12, 3)
    np.testing.assert_allclose(probabilities(files[kind], photos, views), own, atol=allowed)


@pytest.mark.long
@pytest.mark.parametrize("inside", [False, True])
def test_a_hundred_photographs_get_the_answers_of_predict(tmp_path, inside):
    """The paper's convolutions and a smaller head, on drawn photographs of 120 to 600 pixels a side."""
    torch.manual_seed(0)
    model = create_model("alexnet_2012", fc_units=(256, 256), num_classes=20, init="he")
    mean = np.full((256, 256, 3), 110, np.float32)
    preprocessing, names = default_preprocessing("alexnet_2012"), [f"class {k}" for k in range(20)]
    save_model_folder(tmp_path / "model", model, "alexnet_2012", preprocessing, names, mean)
    shown = [draw_picture(CLASSES[i % len(CLASSES)], i) for i in range(100)]
    done = export(tmp_path / "model", "onnx", tmp_path / "a.onnx", pictures=shown, with_preprocessing=inside)
    assert (done.n, done.same_first) == (100, 100)
    own = alexnet.load(tmp_path / "model").predict(shown)
    theirs = alexnet.load(done.file).predict(shown)
    for one, other in zip(own, theirs, strict=True):
        assert one.answers[0].label == other.answers[0].label
        assert one.answers[0].probability == pytest.approx(other.answers[0].probability, abs=1e-3)


def test_predict_names_the_classes_of_the_file(files, run, photos, capsys):
    picture = next((photos / "val").rglob("*.png"))
    answers = []
    for model in (run, files["input"]):
        assert code_of("predict", model, picture, "--json", "--device", "cpu") == 0
        (document,) = json.loads(capsys.readouterr().out)
        answers.append(
            [(a["class"], a["label"], pytest.approx(a["probability"], abs=1e-5)) for a in document["predictions"]]
        )
    assert answers[0] == answers[1]


def test_evaluate_measures_the_error_of_the_file(files, run, photos, capsys):
    documents = []
    for model in (run, *files.values()):
        assert code_of("evaluate", model, "--data", photos, "--split", "val", "--json", "--device", "cpu") == 0
        documents.append(json.loads(capsys.readouterr().out))
    own, *theirs = documents
    for one in theirs:
        assert [one[key] for key in ("n", "top1_errors", "top5_errors")] == [
            own[key] for key in ("n", "top1_errors", "top5_errors")
        ]
        assert one["loss_nats"] == pytest.approx(own["loss_nats"], abs=1e-5)
        assert one["protocol"]["runtime"].startswith("onnxruntime ")
    assert "runtime" not in own["protocol"]
    assert len({one["model"] for one in documents}) == 3


def test_what_an_onnx_file_cannot_do_is_said_in_one_line(files, photos, tmp_path, capsys):
    file, picture = files["input"], next((photos / "val").rglob("*.png"))
    only = "is an ONNX file, which only answers (predict, evaluate)"
    for arguments, said in (
        (("features", file, "--data", photos, "--out", tmp_path / "new"), only),
        (("index", file, photos, "--out", tmp_path / "new"), only),
        (("probe", "kernels", file, "--out", tmp_path / "new"), only),
        (("probe", "saliency", file, "--data", photos, "--out", tmp_path / "new"), only),
        (("info", file), only),
        (("serve", file, "--check", "--port", "0"), only),
        (("export", file, "--to", "hub", "--out", tmp_path / "new"), "is an export; name the run"),
        (("evaluate", file), "an ONNX file does not say what it was trained on; add --data"),
        (("predict", file, picture, "--best"), "--best needs a run"),
        (("predict", file, picture, "--precision", "bfloat16"), "computed in float32"),
        (("predict", files["pixels"], picture, "--views", "10"), "--views 10 cannot be had"),
        (("predict", tmp_path / "nowhere.onnx", picture), "nowhere.onnx"),
    ):
        device = [] if arguments[0] in ("info", "export") else ["--device", "cpu"]
        assert code_of(*arguments, *device) in (1, 2), arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1, (arguments, err)
        assert said in err
        assert "Error:" not in err
    assert not (tmp_path / "new").exists()


def changed(file: Path, change) -> bytes:
    model = onnx.load(file)
    change(model)
    return model.SerializeToString()


def external(location: str):
    def change(model) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    return change


def huge(model) -> None:
    """A billion times a billion numbers, of eight bytes in the file."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "shape"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["much"], name="much"))
    model.graph.node.insert(1, helper.make_node("ReduceMax", ["much"], ["most"], name="most", keepdims=0))
    model.graph.node.insert(2, helper.make_node("Add", ["input", "most"], ["more"], name="more"))
    next(node for node in model.graph.node if node.op_type in ("Conv", "Pad") and node.input[0] == "input").input[0] = (
        "more"
    )


def loops(model) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], name="loop", body=body))


def foreign(model) -> None:
    del model.metadata_props[:]


def metadata(key: str, value: str):
    def change(model) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


HOSTILE = {
    "weights in a file outside": (external("../../etc/passwd"), "keeps weights in another file"),
    "weights in an absolute file": (external("/etc/passwd"), "keeps weights in another file"),
    "no metadata": (foreign, "not exported by `alexnet export`"),
    "loops": (loops, "has loops or functions"),
    "operators of others": (lambda m: setattr(m.graph.node[0], "domain", "evil"), "needs operators of evil"),
    "another version": (metadata("alexnet_model", "9"), "another version of this program"),
    "no JSON": (metadata("config", "{"), "not valid JSON"),
    "another network": (metadata("network", "\x1b[2J"), "do not describe a network"),
    "fewer classes": (metadata("classes", '["a"]'), "1 class names for 3 outputs"),
    "a mean image that is none": (metadata("mean_image", "!!"), "mean_image in its metadata"),
    "another input": (lambda m: setattr(m.graph.input[0], "name", "x"), "no sound ONNX file"),
    "an operator that is none": (lambda m: setattr(m.graph.node[0], "op_type", "Evil"), "no sound ONNX file"),
    "no nodes": (lambda m: m.graph.ClearField("node"), "no sound ONNX file"),
    "of the future": (lambda m: setattr(m.opset_import[0], "version", 9999), "no sound ONNX file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(files, tmp_path, name):
    change, said = HOSTILE[name]
    path = tmp_path / "模型.onnx"
    path.write_bytes(changed(files["input"], change))
    with pytest.raises(AlexNetError) as error:
        alexnet.load(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert str(error.value).isprintable()


def test_a_graph_that_wants_all_memory_is_refused_when_it_is_computed(files, tmp_path, photos):
    path = tmp_path / "huge.onnx"
    path.write_bytes(changed(files["input"], huge))
    with pytest.raises(AlexNetError, match="onnxruntime cannot compute it"):
        alexnet.load(path).predict(next((photos / "val").rglob("*.png")))


def test_a_file_that_is_cut_or_damaged_anywhere_never_ends_the_process(files, tmp_path):
    whole, random = files["input"].read_bytes(), np.random.default_rng(0)
    path, x_BCHW = tmp_path / "cut.onnx", torch.zeros(1, 3, 32, 32)
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(AlexNetError):
            open_onnx(path)
    refused = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), 8):
            damaged[at] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            open_onnx(path)[0](x_BCHW)
        except AlexNetError:
            refused += 1
    assert refused > 0


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "large.onnx"
    with open(path, "wb") as file:
        file.truncate(onnx_network.MAX_ONNX_BYTES + 1)
    with pytest.raises(AlexNetError, match="2,147,483,648 bytes, not read; at most 2,147,483,647"):
        alexnet.load(path)


def test_without_the_packages_it_says_what_to_install(files, monkeypatch):
    monkeypatch.setattr(onnx_network, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r'pip install "alexnet\[onnx\]"'):
        alexnet.load(files["input"])
