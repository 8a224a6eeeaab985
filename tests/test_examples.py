"""Every program in examples/ runs, in a small form, and prints something."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(FOLDER.glob("*.py"))
SMALL: dict[str, dict[str, Any]] = {
    "attributions": {"steps": 4},
    "compiled": {"backend": "eager", "images": 2},
    "hugging_face_dataset": {"epochs": 1},
    "own_loop": {"epochs": 1},
    "single_gradients": {"images": 2},
}
"""Arguments of main() that make it quicker; the others are quick as they are."""
EXTRAS = {"captum", "datasets", "onnx", "onnxruntime", "onnxscript", "pyarrow", "sklearn", "huggingface_hub"}
"""What a program may need besides the package; it is skipped where one is absent."""


@pytest.mark.filterwarnings("ignore")  # of the libraries that the programs show
@pytest.mark.parametrize("name", [program.stem for program in PROGRAMS])
def test_a_program_runs_and_says_what_it_found(name: str, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    program = importlib.util.module_from_spec(spec)
    random = torch.get_rng_state()
    try:
        spec.loader.exec_module(program)
        found = program.main(**SMALL.get(name, {}))
    except ModuleNotFoundError as error:
        if error.name in EXTRAS:
            pytest.skip(f"{error.name} is not installed")
        raise
    finally:
        torch.set_rng_state(random)
    assert capsys.readouterr().out.strip()
    assert f"python examples/{name}.py" in inspect.getdoc(program)
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind
    if name in ("exported", "compiled", "torchvision_weights", "onnx_answers"):
        assert found < 1e-3  # the largest difference of a logit


def test_the_readme_lists_every_program():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [program.name for program in PROGRAMS if f"[{program.name}]({program.name})" not in text] == []
