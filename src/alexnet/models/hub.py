"""A model folder in a repository of the Hugging Face Hub: ``hf-hub:OWNER/NAME``, or ``hf-hub:OWNER/NAME@REVISION``, which the
client huggingface_hub fetches into its own cache. Nothing is fetched but what is asked for by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alexnet.core.errors import AlexNetError, UsageError, in_short, printable
from alexnet.models.folder import is_model_folder

PREFIX = "hf-hub:"
HEAD = "config.json"
FILES = (HEAD, "preprocessor.json", "classes.json", "mean.npy", "model.safetensors")
"""What is fetched of a repository: the files of a model folder."""
_WORD = r"[A-Za-z0-9][\w.-]{0,95}"
_LOG_IN = "for a private one, log in with `hf auth login`"


def is_on_hub(model: str | Path) -> bool:
    """Whether a model is named by its repository."""
    return str(model).startswith(PREFIX)


def fetched(model: str | Path) -> Path:
    """The folder in huggingface_hub's cache with the model of a repository. What is there already is not fetched again, and is
    enough where the hub cannot be reached (or ``HF_HUB_OFFLINE=1`` forbids it).

    Raises :class:`UsageError` for a name that is none and without the package huggingface_hub, and :class:`AlexNetError` of one
    line for a repository that is not there, cannot be had, or holds another kind of model: of that its config.json alone is
    fetched."""
    name, revision = repository(str(model).removeprefix(PREFIX))
    hub = client()
    for files in ([HEAD], [*FILES]):
        folder = asked(name, partial(hub.snapshot_download, name, revision=revision, allow_patterns=files))
        if not is_model_folder(Path(folder)):
            raise AlexNetError(
                f"{PREFIX}{name}: holds no model of this program (config.json is missing, or another program's); name a "
                "repository that `alexnet export --to hub` or alexnet.push_to_hub wrote"
            )
    return Path(folder)


def repository(text: str) -> tuple[str, str | None]:
    """OWNER/NAME, and the revision if one is named."""
    if not (found := re.fullmatch(rf"({_WORD}/{_WORD})(?:@([\w./-]{{1,200}}))?", text, re.ASCII)):
        raise UsageError(
            f"{printable(text)[:100]!r} names no repository; write OWNER/NAME, as its page on the hub does"
        )
    return found[1], found[2]


def client() -> Any:
    """The package huggingface_hub, or a :class:`UsageError` that says how to install it."""
    if find_spec("huggingface_hub") is None:
        raise UsageError('the Hugging Face Hub needs huggingface_hub: pip install "alexnet[hub]"')
    import huggingface_hub

    return huggingface_hub


def asked(name: str, ask: Callable[[], Any]) -> Any:
    """What the hub answers, or an :class:`AlexNetError` of one line that says what to do."""
    try:
        return ask()
    except Exception as error:  # of the hub and of its HTTP client, of many kinds
        raise AlexNetError(f"{PREFIX}{name}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """What went wrong, by the names of the client's errors, which are the same in all its versions."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return "its owner shares it with those who ask; ask on its page on the hub, and log in with `hf auth login`"
    if "RepositoryNotFoundError" in kinds:
        return f"the hub has no such repository; check OWNER/NAME, or {_LOG_IN}"
    if "RevisionNotFoundError" in kinds:
        return "the repository has no such revision; leave @REVISION out, or name a branch, a tag or a commit of it"
    if kinds & {
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "ConnectError",
        "ConnectionError",
        "TimeoutException",
    }:
        return (
            "not in the cache of huggingface_hub, and the hub cannot be reached; fetch it once where there is a network (without "
            "HF_HUB_OFFLINE), or copy a model folder here and name that"
        )
    first = in_short(str(error).strip().partition("\n")[0])
    return f"the hub refused ({type(error).__name__}: {first}); try again, or {_LOG_IN}"
