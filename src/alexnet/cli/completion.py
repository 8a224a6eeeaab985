"""The verb completion: what a shell completes, as a script that needs no Python while one types."""

# No `from __future__ import annotations`: tyro must see the types of options.
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from alexnet.cli.helptext import first_sentence
from alexnet.cli.names import short_name
from alexnet.cli.options import Option, options_of
from alexnet.cli.shared import Word, parse
from alexnet.core.errors import UsageError, perhaps, printable

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Print a script that lets your shell complete verbs, options, their values, recipes and model folders.

    bash: put `source <(alexnet completion bash)` into ~/.bashrc.

    zsh: put `source <(alexnet completion zsh)` into ~/.zshrc, behind compinit.

    fish: write it to ~/.config/fish/completions/alexnet.fish.

    alexnet completion bash
    """

    shell: Word
    """bash, zsh or fish."""


@dataclass(frozen=True)
class Place:
    """A point of the command line: the words that lead to it, and what may follow."""

    words: str
    """``evaluate``, ``probe linear``; empty before the verb."""
    options: dict[str, str] = field(default_factory=dict)
    """What each option does."""
    values: dict[str, str] = field(default_factory=dict)
    """The values of an option, with spaces between: words, or ``FILES`` or ``MODELS``; empty for a number or a text of one's own;
    absent for a switch."""
    next: str = ""
    """What may stand here without hyphens, likewise."""


def completion(arguments: list[str]) -> int:
    options = parse(CompletionOptions, "completion", arguments)
    if options.shell not in SHELLS:
        near = perhaps(options.shell, SHELLS)
        raise UsageError(f"there is no completion for {printable(options.shell)!r}{near}; take bash, zsh or fish")
    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](list(places())), end="")
    return 0


def places() -> Iterator[Place]:
    """Every point of the command line, the shortest first."""
    from alexnet.cli import ALIASES, HELP, VERBS
    from alexnet.cli.baseline import KINDS as BASELINES
    from alexnet.probes import KINDS
    from alexnet.recipes import RECIPES

    verbs = [*VERBS, *ALIASES, "help"]
    yield Place("", {"--help": first_sentence(HELP), "--version": "Print the version."}, next=" ".join(verbs))
    for verb in VERBS:
        for name in (verb, *(other for other, known in ALIASES.items() if known == verb)):
            words = {
                "train": f"{' '.join(RECIPES)} {_sets()} FILES",
                "probe": " ".join(KINDS),
                "baseline": " ".join(BASELINES),
                "claims": "list run report",
                "completion": " ".join(SHELLS),
                "weights": f"get {_weights()}",
                "import": f"{_weights()} FILES",
                "info": f"{_networks()} MODELS",
                "bench": _networks(),
                "check": f"{_sets()} FILES",
                "prepare": f"{_sets()} FILES",
                "pretrain": f"{_sets()} FILES",
                **dict.fromkeys(("report", "serve", "features"), "MODELS"),
                **dict.fromkeys(("cache", "selftest"), ""),
            }.get(name, "FILES")
            yield _place(name, classes_of(verb), words)
    for kind in KINDS:
        yield _place(f"probe {kind}", classes_of("probe", kind), "MODELS")
    for kind in BASELINES:
        yield _place(f"baseline {kind}", classes_of("baseline", kind), "")
    for kind in ("list", "run", "report"):
        yield _place(f"claims {kind}", classes_of("claims", kind), "")


def classes_of(verb: str, kind: str = "") -> list[Any]:
    """What declares the options of a verb, or of a kind of it: classes, and configurations."""
    from alexnet.cli import VERBS

    module = import_module(f"alexnet.cli.{VERBS[verb]}")
    if verb == "train":
        from alexnet.cli.photos import PhotosOptions
        from alexnet.recipes import RECIPES

        return [module.RecipeOptions, PhotosOptions, *(made() for made in RECIPES.values())]
    if verb == "probe":
        return [module.options_of(module.probe_of(kind))] if kind else []
    if verb == "baseline":
        return [module.CLASSES[kind]] if kind else []
    if verb == "claims":
        return [getattr(module, f"{kind.title()}Options")] if kind else []
    return [getattr(module, f"{verb.title()}Options")]


def _place(words: str, classes: list[Any], following: str) -> Place:
    about: dict[str, str] = {}
    values: dict[str, str] = {}
    for option in dict.fromkeys(_all(classes)):
        short = short_name(option.path)
        for name in [option.name] if short is None else [option.name, short]:
            about.setdefault(name, first_sentence(option.help))
            if not isinstance(option.default, bool):
                values.setdefault(name, _values(option))
    about |= {"--help": "Print the options."}
    return Place(words, about, values, following)


def _all(classes: list[Any]) -> Iterator[Option]:
    from alexnet.cli.train import DECIDED

    for each in classes:
        for option in options_of(each) if isinstance(each, type) else options_of(type(each), each):
            if not option.positional and option.path not in DECIDED:
                yield option


def _values(option: Option) -> str:
    """What an option takes."""
    shown = option.values
    if shown.startswith("{"):
        return shown[1:-1].replace(",", " ")
    if option.path == "device":
        return "auto cpu cuda mps"
    if option.path == "data":
        return f"{_sets()} FILES"
    if option.path == "network":
        return _networks()
    if option.path == "recipe":
        from alexnet.recipes import RECIPES

        return " ".join(RECIPES)
    if option.path == "init_from":
        return f"{_weights()} FILES"
    if option.field in ("split", "search_weights"):
        return "all train val test"
    if option.field == "views":
        return "1 10 random:16"
    paths = ("FILE", "FOLDER", "RUN", "MODEL", "OUT", "SAVE", "ROOT", "RESULTS", "PICTURE", "EXPORT", "INDEX")
    return "FILES" if shown.partition(" ")[0] in paths else ""


@cache
def _networks() -> str:
    from alexnet.models import list_models

    return " ".join(list_models())


@cache
def _sets() -> str:
    from alexnet.data.named import NAMED_SETS

    return " ".join(NAMED_SETS)


@cache
def _weights() -> str:
    from alexnet.interop.weights import KNOWN

    return " ".join(each.name for each in KNOWN)


BASH = """\
# What bash completes for alexnet.

_alexnet_models() {  # folders, those of runs and models first by their mark
  local folder
  for folder in "$1"*/; do
    [[ -f $folder/config.json || -d $folder/model ]] && printf '%s\\n' "${folder%/}"
  done
}

_alexnet_place() {  # sets options, takes and following for the words before the cursor
  case $1 in
@PLACES@
    *) return 1 ;;
  esac
}

_alexnet() {
  local now=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} options takes following wanted word found
  local IFS=$' \\t\\n'
  COMPREPLY=()
  if [[ $now == '=' ]]; then now=; elif [[ $before == '=' ]]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi
  [[ ${COMP_WORDS[COMP_CWORD]} == '=' ]] && before=${COMP_WORDS[COMP_CWORD-1]}
  local verb= kind=
  ((COMP_CWORD > 1)) && verb=${COMP_WORDS[1]}
  ((COMP_CWORD > 2)) && kind=${COMP_WORDS[2]}
  _alexnet_place "$verb $kind" || _alexnet_place "$verb" || return
  if [[ $before == -* && " $takes" == *" $before:"* ]]; then
    wanted=" $takes"
    wanted=${wanted#*" $before:"}
    wanted=${wanted%%;*}
  elif [[ $now == -* ]]; then
    wanted=$options
  else
    wanted=$following
  fi
  for word in $wanted; do
    case $word in
      FILES) compopt -o filenames; while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen -f -- "$now") ;;
      MODELS) compopt -o filenames; while IFS= read -r found; do COMPREPLY+=("$found"); done < <(_alexnet_models "$now") ;;
      *) [[ $word == "$now"* ]] && COMPREPLY+=("$word") ;;
    esac
  done
  [[ $wanted != *FILES* && $wanted == *MODELS* ]] && compopt -o plusdirs
  return 0
}

complete -F _alexnet alexnet
"""


def bash(all_places: list[Place]) -> str:
    """The script for bash, 4 or newer."""
    return BASH.replace("@PLACES@", "\n".join(map(_case, all_places)))


def _case(place: Place) -> str:
    takes = " ".join(f"{name}:{values};" for name, values in place.values.items())
    lists = {"options": " ".join(place.options), "takes": takes, "following": place.next}
    said = " ".join(f"{name}={shlex.quote(value)}" for name, value in lists.items())
    return f"    {shlex.quote(place.words)}) {said} ;;"


ZSH = """\
#compdef alexnet
# What zsh completes for alexnet.

_alexnet_place() {  # sets options, takes and following for the words before the cursor
  case $1 in
@PLACES@
    *) return 1 ;;
  esac
}

_alexnet() {
  local now=$words[CURRENT] before=$words[CURRENT-1] verb kind wanted
  local -a options plain
  local -A takes
  local following
  (( CURRENT > 2 )) && verb=$words[2]
  (( CURRENT > 3 )) && kind=$words[3]
  _alexnet_place "$verb $kind" || _alexnet_place "$verb" || return 1
  if [[ $now == -*=* ]]; then before=${now%%=*}; compset -P '*='; fi
  if [[ $before == -* ]] && (( ${+takes[$before]} )); then
    wanted=$takes[$before]
  elif [[ $now == -* ]]; then
    _describe -o option options
    return
  else
    wanted=$following
  fi
  plain=(${${=wanted}:#(FILES|MODELS)})
  (( $#plain )) && compadd -a plain
  if [[ $wanted == *FILES* ]]; then _files; elif [[ $wanted == *MODELS* ]]; then _files -/; fi
  return 0
}

if (( $+functions[compdef] )); then compdef _alexnet alexnet; fi
"""


def zsh(all_places: list[Place]) -> str:
    """The script for zsh, with what each option does."""
    return ZSH.replace("@PLACES@", "\n".join(map(_zsh_case, all_places)))


def _zsh_case(place: Place) -> str:
    described = " ".join(
        shlex.quote(f"{name.replace(':', chr(92) + ':')}:{about}") for name, about in place.options.items()
    )
    takes = " ".join(f"{shlex.quote(name)} {shlex.quote(values)}" for name, values in place.values.items())
    return f"    {shlex.quote(place.words)}) options=({described}); takes=({takes}); following={shlex.quote(place.next)} ;;"


FISH = """\
# What fish completes for alexnet.

function __alexnet_at # whether these words lead to the cursor, and no others do
    set -l typed (commandline -opc)
    set -e typed[1]
    set -l wanted (string split -n ' ' -- $argv[1])
    test (count $typed) -ge (count $wanted); or return 1
    test (count $wanted) -eq 0; and test (count $typed) -gt 0; and return 1
    for i in (seq (count $wanted))
        test "$typed[$i]" = "$wanted[$i]"; or return 1
    end
end

complete -c alexnet -f
"""


def fish(all_places: list[Place]) -> str:
    """The script for fish, with what each option does."""
    return FISH + "".join(line + "\n" for place in all_places for line in _fish_lines(place))


def _fish_lines(place: Place) -> Iterator[str]:
    at = f"complete -c alexnet -n {_fish_quoted(f'__alexnet_at {_fish_quoted(place.words)}')}"
    words = [word for word in place.next.split() if word not in ("FILES", "MODELS")]
    if words:
        yield f"{at} -a {_fish_quoted(' '.join(words))}"
    if "FILES" in place.next or "MODELS" in place.next:
        yield f"{at} -F"
    for name, about in place.options.items():
        kind = "-s" if len(name) == 2 else "-l"
        line = f"{at} {kind} {name.lstrip('-')} -d {_fish_quoted(about)}"
        if name in place.values:
            values = place.values[name].split()
            listed = " ".join(value for value in values if value not in ("FILES", "MODELS"))
            line += " -r -F" if "FILES" in values or "MODELS" in values else " -x"
            line += f" -a {_fish_quoted(listed)}" if listed else ""
        yield line


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
