"""The Hugging Face Hub and torch.hub: what is published, what its card says, and what is fetched. The client is a stand-in
that keeps repositories in a folder; no network is used."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from runpy import run_path

import pytest
import torch

import alexnet
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.interop import hub
from alexnet.interop.exporting import export


class Hub:
    """huggingface_hub, as far as it is used: repositories are folders, and a download is made of links, as in its cache."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, []

    def HfApi(self, token: str | None) -> Hub:
        self.asked.append(("token", token))
        return self

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        self.asked.append((name, private))
        return f"https://hub.example/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        assert commit_message
        shutil.copytree(folder_path, self.root / repo_id)

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((name, revision))
        if not (self.root / name).is_dir():
            raise FileNotFoundError(f"404: no repository {name}\nmore lines")
        snapshot = self.root / "snapshots" / name
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in allow_patterns:
            if (self.root / name / file).exists():
                (snapshot / file).unlink(missing_ok=True)
                (snapshot / file).symlink_to(self.root / name / file)
        return str(snapshot)


@pytest.fixture
def client(tmp_path, monkeypatch) -> Hub:
    client = Hub(tmp_path / "hub")
    monkeypatch.setattr(hub, "_package", lambda: client)
    return client


def test_a_model_goes_to_the_hub_and_comes_back(run, client):
    address = alexnet.push_to_hub(run, "me/clothes", license="cc-by-4.0", token="a token")
    assert address == "https://hub.example/me/clothes"
    assert client.asked == [("token", "a token"), ("me/clothes", False)]
    files = sorted(path.name for path in (client.root / "me/clothes").iterdir())
    assert files == ["README.md", "classes.json", "config.json", "mean.npy", "model.safetensors", "preprocessor.json"]
    assert "a token" not in (client.root / "me/clothes/README.md").read_text(encoding="utf-8")
    network, own = alexnet.from_pretrained("hf-hub:me/clothes@v1.0"), alexnet.from_pretrained(run)
    assert client.asked[-1] == ("me/clothes", "v1.0")
    assert not network.training
    x_BCHW = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(x_BCHW), own(x_BCHW))


def test_the_card_has_the_figures_that_were_measured(run, tmp_path):
    export(run, "hub", tmp_path / "folder", license="mit")
    card = (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
    result = json.loads((run / "results" / "final-center.json").read_text(encoding="utf-8"))
    n, errors = result["n"], result["top1_errors"]
    low, high = result["top1_interval"]
    assert f"| photos, val | center view | 12 | {errors / n:.2%} ({errors} of 12; {low:.1%} to {high:.1%}) |" in card
    assert "ten views" not in card  # not measured
    assert "3: \\<b\\>green\\*, blue, red." in card
    assert str(tmp_path) not in card
    assert str(run.parent) not in card
    entries = dict(line.split(": ", 1) for line in card.split("---\n")[1].splitlines())
    assert json.loads(entries["license"]) == "mit"
    (index,) = json.loads(entries["model-index"])
    metrics = index["results"][0]["metrics"]
    assert [metric["value"] for metric in metrics] == [
        pytest.approx(1 - result["top1_error"], abs=1e-6),
        pytest.approx(1 - result["top5_error"], abs=1e-6),
    ]
    assert all("n = 12" in metric["name"] for metric in metrics)


@pytest.mark.parametrize("state", ["model", "checkpoint/last"])
def test_a_card_implies_no_figure_of_a_state_that_was_not_measured(run, tmp_path, state):
    export(run / state, "hub", tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
    assert "No error of this model was measured" in card
    assert "No license of the weights was stated" in card
    assert "model-index" not in card
    assert "%" not in card


def test_huggingface_hub_reads_the_card(run, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    export(run, "hub", tmp_path / "folder", license="mit")
    read = huggingface_hub.ModelCard.load(tmp_path / "folder" / "README.md", ignore_metadata_errors=False)
    assert (read.data.library_name, read.data.license, read.data.pipeline_tag) == (
        "alexnet",
        "mit",
        "image-classification",
    )
    assert [result.metric_type for result in read.data.eval_results] == ["accuracy", "accuracy"]


def test_what_the_hub_refuses_is_one_line(client, run):
    with pytest.raises(AlexNetError, match=r"hf-hub:me/nothing: the hub did not answer, or refused \(.*404") as error:
        alexnet.from_pretrained("hf-hub:me/nothing")
    assert "\n" not in str(error.value)
    for name in ("nothing", "a/b/c", "../x", "me/", "me/x y", ""):
        with pytest.raises(UsageError, match="names no repository; write OWNER/NAME"):
            alexnet.from_pretrained(f"hf-hub:{name}")
        with pytest.raises(UsageError, match="names no repository"):
            alexnet.push_to_hub(run, name)
    assert client.asked == [("me/nothing", None)]


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r'pip install "alexnet\[hub\]"'):
        alexnet.from_pretrained("hf-hub:me/clothes")


def test_torch_hub_loads_from_a_clone(run, monkeypatch):
    clone = str(Path(__file__).parents[2])
    monkeypatch.setattr(sys, "path", [*sys.path])
    entries = run_path(f"{clone}/hubconf.py")
    names = {name for name, entry in entries.items() if callable(entry) and not name.startswith("_")}
    assert names == {*alexnet.list_models(), "from_pretrained"}
    assert "Random weights" in entries["alexnet_2012"].__doc__
    network = torch.hub.load(clone, "lenet", source="local", num_classes=3, verbose=False)
    assert network(torch.zeros(1, 1, 28, 28)).shape == (1, 3)
    with pytest.raises(UsageError, match="no trained weights of lenet are known by name, only of alexnet_owt"):
        torch.hub.load(clone, "lenet", source="local", pretrained=True, verbose=False)
    trained = torch.hub.load(clone, "from_pretrained", str(run), source="local", verbose=False)
    assert torch.equal(trained.conv1.weight, alexnet.from_pretrained(run).conv1.weight)
