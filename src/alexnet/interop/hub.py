"""The Hugging Face Hub: a model from there, and a model to there. Nothing is fetched or sent but what is asked for by name."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from alexnet.evaluation.predict import load
from alexnet.interop.exporting import export
from alexnet.models.hub import asked, client, repository


def from_pretrained(source: str | Path, *, best: bool = False) -> nn.Module:
    """A trained network, in evaluation mode on the CPU: of a run, a checkpoint or a model folder, or of a repository on the
    Hugging Face Hub, ``hf-hub:OWNER/NAME`` or ``hf-hub:OWNER/NAME@REVISION``, which is fetched into the cache of huggingface_hub.

    The network alone: :func:`alexnet.load` has it together with its preprocessing and its class names, and raises the same.
    Nothing is unpickled."""
    return load(source, best=best).model


def push_to_hub(
    model: str | Path,
    repo_id: str,
    *,
    license: str | None = None,
    private: bool = False,
    token: str | None = None,
    best: bool = False,
) -> str:
    """Publish a run, a checkpoint or a model folder as the repository ``OWNER/NAME`` of the Hugging Face Hub, which is made if it
    is not there: the files of a model folder and a card of what is known of it, as ``alexnet export MODEL --to hub`` writes
    them. ``license`` is that of the weights. Returns the address.

    Raises what :func:`alexnet.export` raises, before anything is sent; :class:`UsageError` for a name that is none and without
    the package huggingface_hub; :class:`AlexNetError` if the hub refuses."""
    hub = client()
    name, _ = repository(repo_id)
    with tempfile.TemporaryDirectory(prefix="alexnet-hub-") as temporary:
        folder = Path(temporary, "model")
        export(model, "hub", folder, license=license, best=best)
        api = hub.HfApi(token=token)
        address = asked(name, lambda: api.create_repo(name, private=private, exist_ok=True))
        asked(name, lambda: api.upload_folder(repo_id=name, folder_path=folder, commit_message="Model and its card"))
    return str(address)
