"""The Hugging Face Hub: a model from there, and a model to there. Nothing is fetched or sent but what is asked for by name."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.evaluation.predict import load
from alexnet.interop.exporting import export

PREFIX = "hf-hub:"
FILES = ("config.json", "preprocessor.json", "classes.json", "mean.npy", "model.safetensors")
"""What is fetched of a repository: the files of a model folder."""
_WORD = r"[A-Za-z0-9][\w.-]{0,95}"


def from_pretrained(source: str | Path, *, best: bool = False) -> nn.Module:
    """A trained network, in evaluation mode on the CPU: of a run, a checkpoint or a model folder, or of a repository on the
    Hugging Face Hub, ``hf-hub:OWNER/NAME`` or ``hf-hub:OWNER/NAME@REVISION``, which is fetched into the cache of huggingface_hub.

    The network alone: :func:`alexnet.load` has it together with its preprocessing and its class names. Nothing is unpickled.
    Raises what :func:`alexnet.load` raises, :class:`UsageError` for a name that is none and without the package
    huggingface_hub, and :class:`AlexNetError` for a repository that cannot be had."""
    folder = _fetched(source) if isinstance(source, str) and source.startswith(PREFIX) else source
    return load(folder, best=best).model


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
    hub = _package()
    name, _ = _named(repo_id)
    with tempfile.TemporaryDirectory(prefix="alexnet-hub-") as temporary:
        folder = Path(temporary, "model")
        export(model, "hub", folder, license=license, best=best)
        api = hub.HfApi(token=token)
        address = _asked(name, lambda: api.create_repo(name, private=private, exist_ok=True))
        _asked(name, lambda: api.upload_folder(repo_id=name, folder_path=folder, commit_message="Model and its card"))
    return str(address)


def _fetched(source: str) -> Path:
    """The folder in huggingface_hub's cache with the files of a repository."""
    hub = _package()
    name, revision = _named(source.removeprefix(PREFIX))
    return Path(_asked(name, lambda: hub.snapshot_download(name, revision=revision, allow_patterns=list(FILES))))


def _named(text: str) -> tuple[str, str | None]:
    """OWNER/NAME, and the revision if one is named."""
    if not (found := re.fullmatch(rf"({_WORD}/{_WORD})(?:@([\w./-]{{1,200}}))?", text, re.ASCII)):
        raise UsageError(
            f"{printable(text)[:100]!r} names no repository; write OWNER/NAME, as its page on the hub does"
        )
    return found[1], found[2]


def _package() -> Any:
    if find_spec("huggingface_hub") is None:
        raise UsageError('the Hugging Face Hub needs huggingface_hub: pip install "alexnet[hub]"')
    import huggingface_hub

    return huggingface_hub


def _asked(name: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:  # of the hub and of its HTTP client, of many kinds
        said = printable(str(error).strip().partition("\n")[0])[:200]
        raise AlexNetError(
            f"{PREFIX}{name}: the hub did not answer, or refused ({type(error).__name__}: {said})"
        ) from error
