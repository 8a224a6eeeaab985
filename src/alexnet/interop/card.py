"""A model folder as the Hugging Face Hub shows it: with a card, README.md, which says what is known of the model, with the
figures that were measured, and how many images they rest on, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet.core.errors import AlexNetError, printable
from alexnet.core.intervals import wilson
from alexnet.core.runs import MAX_SETTINGS_BYTES, read_json, write_bytes
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import Subject
from alexnet.interop.weights import KNOWN
from alexnet.models import about_model
from alexnet.models.folder import save_model_folder
from alexnet.models.states import run_of

RESULTS = {"final-center.json": "center view", "final-ten.json": "ten views"}
"""The results of a run that its card shows, and what they are called."""
MAX_LISTED = 200
"""Classes that a card lists."""


def write_hub_folder(path: Path, subject: Subject, license: str | None) -> None:
    """Write the model folder ``path`` with its card: what would be published. ``license`` is that of the weights."""
    p = subject.predictor
    save_model_folder(path, p.model, p.name, p.preprocessing, p.classes, p.mean, origin=p.origin)
    write_bytes(path / "README.md", card(subject, license).encode("utf-8", "backslashreplace"))


def card(subject: Subject, license: str | None) -> str:
    """The card of a model, in Markdown behind the entries that the hub reads."""
    predictor = subject.predictor
    results = _results(subject)
    data = next((result["data"]["data"] for result in results.values()), None)
    title = f"{predictor.name}, trained on {_plain(data)}" if data else predictor.name
    entries: dict[str, Any] = {
        "library_name": "alexnet",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "alexnet", predictor.name],
        **({"license": license} if license else {}),
        **({"model-index": [{"name": title, "results": _index(results)}]} if results else {}),
    }
    # JSON is YAML, and whatever stands in a name stays a name.
    head = [f"{key}: {json.dumps(value, ensure_ascii=True)}" for key, value in entries.items()]
    sections = [
        f"# {title}",
        f"{about_model(predictor.name)}. {_origin(subject)}",
        "## Errors",
        _errors(results),
        "## Use",
        _use(predictor),
        "## Classes",
        _classes(predictor),
        "## Limits",
        _limits(results, predictor),
        "## License",
        _license(predictor, license),
    ]
    return "\n".join(["---", *head, "---", "", "\n\n".join(sections), ""])


def _plain(text: object) -> str:
    """A name in Markdown, without what Markdown or HTML would read in it."""
    return "".join("\\" + c if c in "\\`*_{}[]()<>#+-.!|~" else c for c in printable(text)[:200])


def _results(subject: Subject) -> dict[str, dict[str, Any]]:
    """The result files of the run, if the model is what it ended with: for another of its states they do not hold."""
    run = run_of(subject.model)
    if run is None or subject.predictor.state is not None:
        return {}
    found = {}
    for name in RESULTS:
        try:
            result = read_json(run / "results" / name, MAX_SETTINGS_BYTES)
        except AlexNetError:
            continue
        if _is_sound(result):
            found[name] = result
    return found


def _is_sound(result: Any) -> bool:
    """Whether this is a result with its counts and its data."""
    if not isinstance(result, dict) or not isinstance(result.get("protocol"), dict):
        return False
    data, n = result.get("data"), result.get("n")
    counts = [result.get("top1_errors"), result.get("top5_errors")]
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("data", "split")):
        return False
    return type(n) is int and n > 0 and all(type(count) is int and 0 <= count <= n for count in counts)


def _index(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": result["data"]["data"], "type": "own", "split": result["data"]["split"]},
            "metrics": [
                {
                    "type": "accuracy",
                    "name": f"top-{k} accuracy, {RESULTS[file]}, n = {result['n']}",
                    "value": round(1 - result[f"top{k}_errors"] / result["n"], 6),
                }
                for k in (1, 5)
            ],
        }
        for file, result in results.items()
    ]


def _errors(results: Mapping[str, Mapping[str, Any]]) -> str:
    if not results:
        return "No error of this model was measured where this card was written."
    rows = ["| images | views | n | top-1 error | top-5 error |", "| --- | --- | ---: | ---: | ---: |"]
    seen = []
    for file, result in results.items():
        n = result["n"]
        cells = [f"{_plain(result['data']['data'])}, {_plain(result['data']['split'])}", RESULTS[file], f"{n:,}"]
        for k in (1, 5):
            errors = result[f"top{k}_errors"]
            low, high = wilson(errors, n)
            cells.append(f"{errors / n:.2%} ({errors:,} of {n:,}; {low:.1%} to {high:.1%})")
        rows.append(f"| {' | '.join(cells)} |")
        for key, said in (
            (
                "seen_in_training",
                "The model was trained on {num:,} of these images, so these are not its errors on new ones.",
            ),
            (
                "chose_the_checkpoint",
                "The epoch was chosen by its errors on {num:,} of these images, so they are lower than on new ones.",
            ),
        ):
            if type(num := result["protocol"].get(key)) is int and num > 0:
                seen.append(said.format(num=num))
    table = "\n".join([*rows, "", "In brackets: counts, and Wilson's 95 % interval over images."])
    return "\n\n".join([table, *dict.fromkeys(seen)])


def _origin(subject: Subject) -> str:
    """Where the weights come from, as far as the run or the folder says."""
    predictor = subject.predictor
    if (origin := predictor.origin) is not None:
        return f"Its weights were imported from the file {_plain(origin.file)} (SHA-256 `{_plain(origin.sha256)}`)."
    trained = subject.trained
    if not trained:
        return "The folder that it was made of does not say how it was trained."
    recipe, epochs, seed = (trained.get(key) for key in ("recipe", "epochs", "seed"))
    said = f"Trained by the recipe `{_plain(recipe)}`, seed {_plain(seed)}, planned for {_plain(epochs)} passes over the images."
    if (state := predictor.state) is not None:
        said += f" This is its checkpoint after {state.epoch} passes."
    initial = (subject.settings or {}).get("initial")
    if isinstance(initial, dict) and isinstance(initial.get("source"), str):
        said += f" It began with the weights of {_plain(Path(initial['source']).name)}."
    return said


def _use(predictor: Predictor) -> str:
    p = predictor.preprocessing
    return f"""```python
import alexnet

predictor = alexnet.load("hf-hub:OWNER/NAME")  # the name of this repository
print(predictor.predict("cat.jpg").answers[0].name)

network = alexnet.from_pretrained("hf-hub:OWNER/NAME")  # the network alone, an nn.Module
```

The network reads {p.channels} channels of {p.crop} x {p.crop} pixels; `preprocessor.json` says how a photograph becomes that, and
`alexnet.load` does it."""


def _classes(predictor: Predictor) -> str:
    num = len(predictor.classes)
    shown = ", ".join(_plain(name) for name in predictor.classes[:MAX_LISTED])
    more = f" and {num - MAX_LISTED:,} more (`classes.json`)" if num > MAX_LISTED else ""
    return f"{num:,}: {shown}{more}."


def _limits(results: Mapping[str, Mapping[str, Any]], predictor: Predictor) -> str:
    first = (
        "The figures above hold for the images named beside them, and say nothing of photographs of another kind."
        if results
        else "How often it errs on any photographs is not known."
    )
    return (
        f"{first} The network answers every picture with one of its {len(predictor.classes):,} classes, also a picture of "
        "none of them. Not measured: whether its probabilities are right on average, and how it errs by place, time, or camera."
    )


def _license(predictor: Predictor, license: str | None) -> str:
    said = (
        f"The weights: {_plain(license)}."
        if license
        else "No license of the weights was stated when this card was written."
    )
    origin = predictor.origin
    if origin and (known := next((each for each in KNOWN if each.sha256 == origin.sha256), None)):
        said += f" They were imported from {_plain(known.name)}, whose license is {_plain(known.license)}."
    return said + " The program that computes with them, `alexnet`, is under the MIT license."
