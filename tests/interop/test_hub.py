"""The Hugging Face Hub and torch.hub: what is published, what its card says, and what is fetched. The client is a stand-in
that keeps repositories in a folder; no network is used."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from runpy import run_path

import numpy as np
import PIL.Image
import pytest
import torch

import alexnet
from alexnet.cli import main
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.evaluation.describe import describe
from alexnet.interop import hub as publishing
from alexnet.interop.exporting import export
from alexnet.models import hub


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
    for module in (hub, publishing):
        monkeypatch.setattr(module, "client", lambda: client)
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


def test_load_and_every_verb_take_a_repository(run, client, tmp_path, capsys):
    alexnet.push_to_hub(run, "me/clothes")
    export(run, "hub", tmp_path / "folder")
    for name in ("hf-hub:me/clothes", Path("hf-hub:me/clothes@main")):
        predictor, own = alexnet.load(name), alexnet.load(tmp_path / "folder")
        assert (predictor.classes, predictor.preprocessing) == (own.classes, own.preprocessing)
        assert torch.equal(torch.from_numpy(predictor.mean), torch.from_numpy(own.mean))
    picture = np.full((40, 50, 3), 90, np.uint8)
    assert predictor.predict(picture) == own.predict(picture)
    PIL.Image.fromarray(picture).save(tmp_path / "cat.png")
    with pytest.raises(SystemExit, match="0"):
        main(["predict", "hf-hub:me/clothes", str(tmp_path / "cat.png"), "--json"])
    assert json.loads(capsys.readouterr().out)[0]["predictions"][0]["class"] == own.predict(picture).answers[0].name
    assert describe("hf-hub:me/clothes")["parameters"] == sum(p.numel() for p in own.model.parameters())
    with pytest.raises(UsageError, match="--best needs a run"):
        alexnet.load("hf-hub:me/clothes", best=True)


REFUSALS = [
    (("GatedRepoError", "RepositoryNotFoundError"), "its owner shares it with those who ask"),
    (
        ("RepositoryNotFoundError", "HfHubHTTPError"),
        "no such repository; check OWNER/NAME, or for a private one, log in",
    ),
    (("RevisionNotFoundError", "HfHubHTTPError"), "no such revision; leave @REVISION out"),
    (("LocalEntryNotFoundError",), "the hub cannot be reached; fetch it once where there is a network"),
    (("HfHubHTTPError",), r"the hub refused \(HfHubHTTPError: 503 Server Error\); try again"),
]


@pytest.mark.parametrize(("kinds", "says"), REFUSALS, ids=[kinds[0] for kinds, _ in REFUSALS])
def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(client, monkeypatch, kinds, says):
    kind: type = OSError
    for name in reversed(kinds):
        kind = type(name, (kind,), {})

    def refuse(*_: object, **__: object) -> None:
        raise kind("503 Server Error\nmore lines")

    monkeypatch.setattr(client, "snapshot_download", refuse)
    with pytest.raises(AlexNetError, match=f"hf-hub:me/nothing: .*{says}") as error:
        alexnet.load("hf-hub:me/nothing")
    assert "\n" not in str(error.value)


def test_names_that_are_none_are_refused_before_anything_is_asked(client, run):
    for name in ("nothing", "a/b/c", "../x", "me/", "me/x y", ""):
        for call in (alexnet.load, alexnet.from_pretrained):
            with pytest.raises(UsageError, match="names no repository; write OWNER/NAME"):
                call(f"hf-hub:{name}")
        with pytest.raises(UsageError, match="names no repository"):
            alexnet.push_to_hub(run, name)
    assert client.asked == []


def test_of_another_kind_of_model_only_its_settings_are_fetched(client):
    other = client.root / "me" / "transformer"
    other.mkdir(parents=True)
    (other / "model.safetensors").write_bytes(b"large")
    for settings in (None, '{"model_type": "vit"}'):
        if settings:
            (other / "config.json").write_text(settings)
        with pytest.raises(AlexNetError, match="hf-hub:me/transformer: holds no model of this program"):
            alexnet.load("hf-hub:me/transformer")
    assert not (client.root / "snapshots/me/transformer/model.safetensors").exists()


def test_offline_what_was_fetched_is_enough(run, tmp_path, monkeypatch):
    real = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    monkeypatch.setattr(real.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(real.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        AlexNetError, match="hf-hub:me/clothes: not in the cache of huggingface_hub, and the hub cannot be"
    ):
        alexnet.load("hf-hub:me/clothes")
    commit, folder = "0123456789" * 4, tmp_path / "models--me--clothes"
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots").mkdir()
    (folder / "refs" / "main").write_text(commit)
    export(run, "hub", folder / "snapshots" / commit)
    assert alexnet.load("hf-hub:me/clothes").classes == alexnet.load(run).classes


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda _name: None)
    for call in (alexnet.load, alexnet.from_pretrained):
        with pytest.raises(UsageError, match=r'pip install "alexnet\[hub\]"'):
            call("hf-hub:me/clothes")


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
