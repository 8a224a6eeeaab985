"""From the names of folders, and from where images lie in them, to splits and classes.

What a folder holds decides what it is; its name only says which split it is. A folder called ``train`` that holds images
itself, beside other folders of images, is a class. A layout that can be read in two ways is refused, with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from alexnet.core.errors import DataError, printable
from alexnet.data.sources import SPLITS, SplitName

Folder = tuple[str, ...]
"""The names of a folder and of those that it lies in, from the root of the set down."""

Heads = Mapping[Folder, tuple[SplitName, str | None]]
"""The split of a folder whose folders are classes (None), or which is itself the part of a class that is in the split."""

_WORDS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "训练", "訓練"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "development", "验证", "驗證"), "val"),
    **dict.fromkeys(("test", "testing", "测试", "測試"), "test"),
}
_EVALUATION = ("eval", "evaluation", "holdout", "heldout")
"""The test images where others are for validation, else those for validation."""
_PLAIN_WORDS = (
    *("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
    *("split", "subset", "folder", "folders", "files", "集", "集合", "数据集"),
)
"""May stand beside the name of a split: train_set, test images, ValData, train2017."""
_SPLIT_WORD = re.compile(f"({'|'.join((*_WORDS, *_EVALUATION))})({'|'.join(_PLAIN_WORDS)})?")


def splits_of(names: Iterable[str]) -> dict[str, SplitName]:
    """Those of the names that are names of splits, with the split that each means beside the others: train, Training-Set,
    val, dev, valid_images, test2017, ..."""
    parts = {name: _split_word(name) for name in names}
    return _meanings({name: word for name, (word, others) in parts.items() if word and not others})


def _split_word(name: str) -> tuple[str, tuple[str, ...]]:
    """The word for a split in a name ("" for none, or several), and the other words in it that could mean anything."""
    parted = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold()
    parted = re.sub(r"\b(hold|held)[\W_]out\b", "holdout", parted.replace("_", " "))
    found, others = [], []
    for word in re.findall(r"[^\W\d_]+", parted):
        if match := _SPLIT_WORD.fullmatch(word):
            found.append(match[1])
        elif word not in _PLAIN_WORDS:
            others.append(word)
    return (found[0], tuple(others)) if len(found) == 1 else ("", ())


def _meanings(words: Mapping[str, str]) -> dict[str, SplitName]:
    known = {_WORDS[word] for word in words.values() if word in _WORDS}
    evaluation: SplitName = "test" if "val" in known and "test" not in known else "val"
    return {name: _WORDS.get(word, evaluation) for name, word in words.items()}


@dataclass
class _Node:
    """A folder: how many images lie in it itself and further below, and its folders."""

    images: int = 0
    below: int = 0
    inner: dict[str, _Node] = field(default_factory=dict)

    @property
    def filled(self) -> dict[str, _Node]:
        """Its folders that have images in them, however deep."""
        return {name: node for name, node in self.inner.items() if node.images or node.below}

    @property
    def holds_folders(self) -> bool:
        """Whether fewer images lie in the folder itself than in the folders below it."""
        return self.images < self.below


@dataclass(frozen=True)
class Layout:
    """Which folders hold classes, or are one."""

    heads: Heads
    wrapping: int = 0
    """Number of folders, each the only one in another, that lie around everything; folders here are named from below them."""
    notes: Sequence[str] = ()

    def place(self, folder: Folder) -> tuple[SplitName, str] | None:
        """Split and class of an image in ``folder``; None if it lies beside the classes."""
        for depth in range(len(folder), -1, -1):
            if (head := self.heads.get(folder[:depth])) is not None:
                split, name = head
                if name is None and depth == len(folder):
                    return None
                return split, folder[depth] if name is None else name
        return None

    def is_class_folder(self, folder: Folder) -> bool:
        """Whether ``folder`` is where a class begins."""
        inside = self.heads.get(folder[:-1]) if folder else None
        return (inside is not None and inside[1] is None and folder not in self.heads) or (
            (own := self.heads.get(folder)) is not None and own[1] is not None
        )


def understand(images: Mapping[Folder, int], folders: Iterable[Folder], where: str) -> Layout:
    """The layout of a set with so many images in each folder. ``folders``: all folders, also empty ones. ``where``: the set,
    for messages. Raises :class:`DataError` for a layout that can be read in two ways."""
    node, wrapping = _inside_wrapping(_tree(images, folders))
    tops = node.filled
    named = splits_of(tops)
    splits = {name: split for name, split in named.items() if tops[name].holds_folders} or _prefixed(tops)
    if splits:
        heads, notes = _of_splits(node, named, splits, where)
    elif inside := _splits_inside_classes(tops, where):
        heads, notes = inside, []
    else:
        heads, notes = _of_classes(tops, named, where)
    heads, below = _below_letters(heads, node)
    return Layout(heads, wrapping, [*notes, *below, *_notes_on_nested(heads, node)])


def _tree(images: Mapping[Folder, int], folders: Iterable[Folder]) -> _Node:
    root = _Node()
    for folder, count in [*images.items(), *((folder, 0) for folder in folders)]:
        node = root
        for name in folder:
            node.below += count
            node = node.inner.setdefault(name, _Node())
        node.images += count
    return root


def _inside_wrapping(node: _Node) -> tuple[_Node, int]:
    """The set below the folders that only wrap it, as archives have them, and how many these are."""
    depth = 0
    while not node.images and len(node.filled) == 1:
        ((name, inner),) = node.filled.items()
        if not inner.filled or (splits_of([name]) and not _has_splits(inner)):
            break
        node, depth = inner, depth + 1
    return node, depth


def _has_splits(node: _Node) -> bool:
    """Whether a folder holds splits, and not classes of which some are called so."""
    splits = splits_of(node.filled)
    classes = any(inner.images for name, inner in node.filled.items() if name not in splits)
    return not classes and any(node.filled[name].holds_folders for name in splits)


def _alike(a: _Node, b: _Node) -> bool:
    """Whether two folders hold the same folders: two or more, and half of those of the one that has fewer."""
    names_a, names_b = _inner_names(a), _inner_names(b)
    return len(names_a & names_b) >= max(2, min(len(names_a), len(names_b)) / 2)


def _inner_names(node: _Node) -> set[str]:
    return {name.casefold() for name in node.filled}


# --- splits over classes --------------------------------------------------------------------------------------------


def _prefixed(tops: Mapping[str, _Node]) -> dict[str, SplitName]:
    """Folders like ``seg_train`` and ``seg_test``, with more in their names than a split, that hold the same folders or,
    as some archives have it, each one folder of its own name."""
    parts = {name: part for name, node in tops.items() if node.holds_folders and (part := _split_word(name))[0]}
    splits = _meanings({name: word for name, (word, _) in parts.items()})
    shared = all(_alike(tops[a], tops[b]) for a, b in combinations(splits, 2))
    one_prefix = len({others for _, others in parts.values()}) == 1
    doubled = all(_inner_names(tops[name]) == {name.casefold()} for name in splits)
    distinct = len(splits) == len(set(splits.values())) > 1
    return splits if distinct and (shared or (one_prefix and doubled)) else {}


def _of_splits(
    root: _Node, named: Mapping[str, SplitName], splits: Mapping[str, SplitName], where: str
) -> tuple[Heads, list[str]]:
    """``named``: all folders with the name of a split, ``splits``: those that hold folders."""
    tops = root.filled
    heads = _class_folders(tops, splits)
    classes = {name for folder in heads for name in _inner_names(_at(root, folder))}
    others = [name for name in tops if name not in named and name not in splits]
    listed = _listed(splits)
    for other in others:
        inner = _inner_names(tops[other])
        if inner and len(inner & classes) >= min(len(inner), max(2, min(len(inner), len(classes)) / 2)):
            raise DataError(
                f"{where}: {printable(other)} holds the same folders as {listed} ({_listed(sorted(inner & classes))}), but "
                "its name is not that of a split; rename it train, val or test, or move it elsewhere"
            )
    beside = [name for name in others if tops[name].images]
    if len(splits) == 1 and beside:
        holds = "holds" if len(beside) == 1 else "hold"
        raise DataError(
            f"{where}: {listed} holds folders ({_listed(tops[next(iter(splits))].filled)}), while {_listed(beside)} beside it "
            f"{holds} images; if {listed} is a split, move {_listed(beside)} into train/ or elsewhere; if it is a class, "
            f"move the images in its folders into {listed} itself"
        )
    notes = []
    for name, split in named.items():
        if name in splits:
            continue
        images = f"{tops[name].images:,} image{'s' if tops[name].images != 1 else ''}"
        if split != "test":
            raise DataError(
                f"{where}: {printable(name)} holds {images} but no class folders, as {listed} does; move them into "
                f"{printable(name)}/CLASS/, or move {printable(name)} elsewhere"
            )
        notes.append(f"{printable(name)} has no class folders, so its {images} are not used")
    notes += [
        f"{printable(name)} is not named like a split, so its {tops[name].images + tops[name].below:,} images are not used"
        for name in others
    ]
    odd = [(SPLITS.index(split), name) for name, split in splits.items() if name.lower() != split]
    if odd:
        notes.append(", ".join(f"{printable(name)} is read as {SPLITS[i]}" for i, name in sorted(odd)))
    empty = {name: split for name, split in splits_of([*splits, *root.inner]).items() if name not in tops}
    return {folder: (split, None) for folder, split in [*heads.items(), *(((n,), s) for n, s in empty.items())]}, notes


def _class_folders(tops: Mapping[str, _Node], splits: Mapping[str, SplitName]) -> dict[Folder, SplitName]:
    """The folder of each split that holds its classes: itself, or the only one in it if that has the same name (as in
    ``test_set/test_set/``), or if all have but this one (as in ``train/images/``, ``val/images/``)."""
    only = {name: next(iter(tops[name].filled)) for name in splits if len(tops[name].filled) == 1}
    one_for_all = len(only) == len(splits) and len(set(only.values())) == 1
    heads: dict[Folder, SplitName] = {}
    for name, split in splits.items():
        folder = only.get(name)
        doubled = folder is not None and folder.casefold() == name.casefold()
        holds_classes = folder is not None and bool(tops[name].filled[folder].filled)
        if folder and (holds_classes or not splits_of([name])) and (doubled or one_for_all):
            heads[name, folder] = split
        else:
            heads[name,] = split
    return heads


# --- classes over splits, and classes alone -------------------------------------------------------------------------


def _splits_inside_classes(tops: Mapping[str, _Node], where: str) -> Heads:
    """The heads of ``CLASS/train``, ``CLASS/val``; none if folders do not lie so."""
    inside = {
        name: splits
        for name, node in tops.items()
        if node.holds_folders and len(splits := splits_of(node.filled)) == len(node.filled)
    }
    whole = [name for name in tops if name not in inside]
    if not any(len(splits) > 1 for splits in inside.values()):
        return {}
    if whole:
        first = next(iter(inside))
        raise DataError(
            f"{where}: {printable(first)} holds the splits {_listed(inside[first])}, but {_listed(whole)} beside it "
            f"{'does' if len(whole) == 1 else 'do'} not; divide every class, or none"
        )
    words = splits_of([name for splits in inside.values() for name in splits])
    return {(top, name): (words[name], top) for top, splits in inside.items() for name in splits}


def _of_classes(tops: Mapping[str, _Node], named: Mapping[str, SplitName], where: str) -> tuple[Heads, list[str]]:
    if tops and len(named) == len(tops):
        first = printable(next(iter(named)))
        raise DataError(
            f"{where}: images, but not in class folders: {_listed(named)} hold{'s' if len(named) == 1 else ''} them directly; "
            f"if that is a split, move its images into {first}/CLASS/; if these names are the classes, put the folders into "
            f"one called train (train/{first}/)"
        )
    if all(node.holds_folders for node in tops.values()):
        for a, b in combinations(tops, 2):
            if _alike(tops[a], tops[b]):
                inner = _listed(sorted(_inner_names(tops[a]) & _inner_names(tops[b])))
                raise DataError(
                    f"{where}: {printable(a)} and {printable(b)} hold the same folders ({inner}); if {printable(a)} and "
                    f"{printable(b)} are splits, rename them train, val or test; if they are classes, put all class folders "
                    f"into one called train (train/{printable(a)}/)"
                )
    notes = [
        f"{printable(name)} is a class, not a split: it holds images itself, as the folders beside it do"
        for name in named
    ]
    return {(): ("train", None)}, notes


# --- more folders above or below the classes ------------------------------------------------------------------------


def _below_letters(heads: Heads, root: _Node) -> tuple[Heads, list[str]]:
    """The heads one folder deeper where every one of them holds folders of one letter, with the classes that begin with it."""
    letters = [
        (folder, head, name, node)
        for folder, head in heads.items()
        if head[1] is None
        for name, node in _at(root, folder).filled.items()
    ]
    inner = [class_name for _, _, _, node in letters for class_name in node.filled]
    words = sum(
        class_name[1:2].isalpha() for class_name in inner
    )  # t-shirt may be one among words, A_1 and B_1 are none
    if not words > len(inner) / 2 or not all(_is_letter_above(name, node) for _, _, name, node in letters):
        return dict(heads), []
    names = _listed(sorted({name for _, _, name, _ in letters}))
    return (
        {(*folder, name): head for folder, head, name, _ in letters},
        [f"the folders {names} only sort the class folders in them; they are not classes"],
    )


def _is_letter_above(name: str, node: _Node) -> bool:
    return (
        len(name) == 1
        and name.isalpha()
        and not node.images
        and all(inner[:1].casefold() == name.casefold() for inner in node.filled)
    )


def _notes_on_nested(heads: Heads, root: _Node) -> list[str]:
    """What is said of classes that hold several folders and no images themselves: these may have been meant."""
    nested = {
        name: list(node.filled)
        for folder, (_, own) in heads.items()
        if own is None
        for name, node in _at(root, folder).filled.items()
        if not node.images and len(node.filled) > 1 and (*folder, name) not in heads
    }
    if not nested:
        return []
    first = next(iter(nested))
    return [
        f"class {printable(first)} holds folders ({_listed(nested[first])}) and no images itself; all that lies in them is "
        f"{printable(first)}" + (f" (and so with {len(nested) - 1} more classes)" if len(nested) > 1 else "")
    ]


def _at(root: _Node, folder: Folder) -> _Node:
    node = root
    for name in folder:
        node = node.inner[name]
    return node


def _listed(names: Iterable[str]) -> str:
    """The first names of many, for a message."""
    all_names = [printable(name) for name in names]
    if len(all_names) > 4:
        return f"{', '.join(all_names[:3])}, ..."
    return " and ".join([", ".join(all_names[:-1]), all_names[-1]] if len(all_names) > 1 else all_names)
