"""The names at the top of the package, used as a script would."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.training.config import TrainConfig


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label, name in enumerate(("cold", "warm")):
        (root / name).mkdir()
        for i in range(10):
            pixels = random.integers(0, 100, (40, 60, 3), dtype=np.uint8)
            pixels[..., 2 - 2 * label] += 120
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_prepare_train_load_predict_and_evaluate_from_python(photos, tmp_path):
    packed = alexnet.prepare(photos, tmp_path / "packed", size=32, workers=1)
    config = TrainConfig(
        recipe="tiny",
        network="lenet",
        model=alexnet.create_model("lenet", in_channels=3, num_classes=2).config,
        data=str(packed.path),
        size=32,
        preprocessing=Preprocessing(resize=32, crop=28, mean="none", scale=1 / 255),
        epochs=1,
        batch_size=4,
        views=("1",),
    )
    summary = alexnet.train(config, tmp_path / "run", data=packed)
    assert summary["views"]["1"]["n"] == 4
    with pytest.raises(UsageError, match="made with other settings"):
        alexnet.train(alexnet.recipe("lenet"), tmp_path / "run", data=packed, resume=True)
    evaluation = alexnet.evaluate([tmp_path / "run"], views="10")
    assert evaluation.n == 4
    prediction = alexnet.load(tmp_path / "run").predict(photos / "warm" / "0.png")
    assert {answer.name for answer in prediction.answers} == {"cold", "warm"}
    assert alexnet.write_report(tmp_path / "run").is_file()
    assert alexnet.check(packed.path)["faults"] == []


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, alexnet; print(alexnet.__version__); assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tranform'"):
        alexnet.tranform  # noqa: B018
    assert set(alexnet.__all__) == set(dir(alexnet))


def test_the_documentation_lists_the_public_names_with_a_sentence_and_an_example():
    text = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
    heads = re.split(r"^### `(\w+)`$", text, flags=re.MULTILINE)
    sections = dict(zip(heads[1::2], heads[2::2], strict=True))
    assert sorted(sections) == sorted(alexnet.__all__)
    known = {"alexnet": alexnet, "dataclasses": dataclasses, "pathlib": pathlib, "torch": torch}
    known["config"] = alexnet.recipe("modern_photos")
    for name, section in sections.items():
        before, example, *_ = section.split("```python\n")[0], *section.split("```python\n")[1].split("```")
        assert re.match(r"[A-Z].*[.:]$", before.strip().split("\n\n")[0], re.DOTALL), name
        assert f"alexnet.{name}" in example, name
        compile(example, name, "exec")
        if (name[0].isupper() and name != "ImageDataset") or name in (
            "recipe",
            "list_models",
            "create_model",
        ):  # those that need no files
            exec(example, dict(known))


def test_every_public_name_is_what_it_is_called():
    for name in alexnet.__all__:
        found = getattr(alexnet, name)
        assert name == "__version__" or found.__name__ == name
