"""Wrong invocations of every verb, the small world they are tried in, and what makes an answer a good one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet.core.errors import printable

MAX_MESSAGE = 200
"""Characters of a message, without paths and without what the user wrote."""
NOBODY = 65534


@dataclass(frozen=True)
class Wrong:
    """An invocation that cannot succeed."""

    arguments: tuple[str, ...]
    names: str
    """What the message must name."""
    codes: tuple[int, ...] = (1, 2)
    as_nobody: bool = False
    """Try it as a user without rights."""
    lines: int = 1
    """Lines on stderr, where the failing one comes after others: of progress, or of files left out."""

    @property
    def id(self) -> str:
        return " ".join(self.arguments).encode("unicode_escape", "surrogatepass").decode()[:90]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str
    wall_seconds: float
    cpu_seconds: float


def _wrong(line: str, names: str, *codes: int) -> Wrong:
    return Wrong(tuple(shlex.split(line)), names, codes or (1, 2))


TINY = (
    "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16 "
    "--model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 --epochs 1 --batch-size 8 "
)
TRAIN = f"train quickstart --data packed --out new --device cpu {TINY}"
PREDICT = "predict run photos/val/warm/0.png --device cpu "
EVALUATE = "evaluate run --device cpu "
FEATURES = "features run --out new --device cpu "

VERBS = [
    _wrong("trian", "trian"),
    _wrong("Train", "Train"),
    _wrong("''", "verb"),
    _wrong("--epochs 3", "--epochs"),
    _wrong("--versio", "--versio"),
    _wrong("-x", "-x"),
    Wrong(("train\nquickstart",), "train\\nquickstart"),
    Wrong(("tr\udce9ain",), "tr\\udce9ain"),
    Wrong(("v" * 3000,), "vvv"),
    Wrong(("\x1b[31mred",), "\\x1b[31mred"),
    Wrong(("<script>",), "<script>"),
]
TRAINING = [
    _wrong("train paper2013 --out new", "paper2013"),
    _wrong("train quickstrat --out new", "quickstrat"),
    _wrong("train '' --out new", "recipe"),
    _wrong("train --out new quickstart", "recipe"),
    Wrong(("train", "paper\n2012", "--out", "new"), "paper\\n2012"),
    Wrong(("train", "r" * 5000, "--out", "new"), "rrr"),
    _wrong("train quickstart", "--out"),
    _wrong("train quickstart --out", "--out"),
    _wrong("train quickstart new", "--out"),
    _wrong("train quickstart --out new extra", "extra"),
    _wrong(TRAIN + "--epochs many", "epochs"),
    _wrong(TRAIN + "--epochs 0", "epochs"),
    _wrong(TRAIN + "--epochs -3", "epochs"),
    _wrong(TRAIN + "--epochs 1.5", "epochs"),
    _wrong(TRAIN + "--epochs nan", "epochs"),
    _wrong(TRAIN + "--epochs ''", "epochs"),
    _wrong(TRAIN + "--epochs", "epochs"),
    _wrong(TRAIN + "--epochs 1 2", "2"),
    _wrong(TRAIN + "--epochs 1 --epochs 0", "epochs"),
    _wrong(TRAIN + "--epoch 3", "--epoch"),
    _wrong(TRAIN + "--batch-size 0", "--batch-size"),
    _wrong(TRAIN + "--batch-size -1", "--batch-size"),
    _wrong(TRAIN + "--batch-size 1e3", "batch-size"),
    _wrong(TRAIN + "--batchsize 8", "--batchsize"),
    _wrong(TRAIN + "--checkpoint-steps 0", "--checkpoint-steps"),
    _wrong(TRAIN + "--label-smoothing 1", "--label-smoothing"),
    _wrong(TRAIN + "--label-smoothing -0.1", "--label-smoothing"),
    _wrong(TRAIN + "--label-smoothing nan", "--label-smoothing"),
    _wrong(TRAIN + "--balance equal", "balance"),
    _wrong(TRAIN + "--balance sampler --augmentation.crops 2", "--balance"),
    _wrong(TRAIN + "--early-stopping 0", "--early-stopping"),
    _wrong(TRAIN + "--early-stopping some", "early-stopping"),
    _wrong(TRAIN + "--ema 1", "--ema"),
    _wrong(TRAIN + "--ema -0.1", "--ema"),
    _wrong(TRAIN + "--ema nan", "--ema"),
    _wrong(TRAIN + "--start-share 1", "--start-share"),
    _wrong(TRAIN + "--start-share 0.5", "--init-from"),
    _wrong(TRAIN + "--start-share 0.5 --ema 0.9", "--ema"),
    _wrong(TRAIN + "--augmentation.mixup -1", "--augmentation.mixup"),
    _wrong(TRAIN + "--augmentation.mixup nan", "--augmentation.mixup"),
    _wrong(TRAIN + "--augmentation.cutmix 1e9", "--augmentation.cutmix"),
    _wrong(TRAIN + "--until-train-error 2", "--until-train-error"),
    _wrong(TRAIN + "--until-train-error nan", "--until-train-error"),
    _wrong(TRAIN + "--train-images 0", "--train-images"),
    _wrong(TRAIN + "--train-images -5", "--train-images"),
    _wrong(TRAIN + "--train-images some", "train-images"),
    _wrong(TRAIN + "--precision float8", "precision"),
    _wrong(TRAIN + "--precision", "precision"),
    _wrong(TRAIN + "--seed one", "seed"),
    _wrong(TRAIN + "--seed 1.5", "seed"),
    _wrong(TRAIN + "--views 7", "7"),
    _wrong(TRAIN + "--views random:0", "random:0"),
    _wrong(TRAIN + "--views ten", "ten"),
    _wrong(TRAIN + "--size 0", "size"),
    _wrong(TRAIN + "--size -32", "size"),
    _wrong(TRAIN + "--size big", "size"),
    _wrong(TRAIN + "--optimizer.rate 1", "--optimizer.rate"),
    _wrong(TRAIN + "--optimizer.lr fast", "lr"),
    _wrong(TRAIN + "--optimizer.lr -1", "lr"),
    _wrong(TRAIN + "--optimizer.lr nan", "lr"),
    _wrong(TRAIN + "--optimizer.lr inf", "lr"),
    _wrong(TRAIN + "--optimizer.momentum 1", "momentum"),
    _wrong(TRAIN + "--optimizer.momentum -0.5", "momentum"),
    _wrong(TRAIN + "--optimizer.weight-decay -1", "--optimizer.weight-decay"),
    _wrong(TRAIN + "--optimizer.kind adagrad", "kind"),
    _wrong(TRAIN + "--optimizer.layer-lr conv1", "layer-lr"),
    _wrong(TRAIN + "--optimizer.layer-lr conv9 0", "conv9"),
    _wrong(TRAIN + "--optimizer.layer-lr conv1 slow", "layer-lr"),
    _wrong(TRAIN + "--schedule.patience 0", "patience"),
    _wrong(TRAIN + "--schedule.unknown 1", "--schedule.unknown"),
    _wrong(TRAIN + "--schedule.warmup -1", "warmup"),
    _wrong(TRAIN + "--model.input-size 3", "--model.input-size"),
    _wrong(TRAIN + "--model.input-size 0", "--model.input-size"),
    _wrong(TRAIN + "--model.fc-units 16", "fc-units"),
    _wrong(TRAIN + "--model.fc-units -1 16", "--model.fc-units"),
    _wrong(TRAIN + "--model.conv-channels 8 8", "conv-channels"),
    _wrong(TRAIN + "--model.dropout 1.5", "dropout"),
    _wrong(TRAIN + "--model.dropout nan", "dropout"),
    _wrong(TRAIN + "--model.towers 3", "towers"),
    _wrong(TRAIN + "--model.init random", "init"),
    _wrong(TRAIN + "--model.layers 8", "--model.layers"),
    _wrong(TRAIN + "--model.num-classes -1", "--model.num-classes"),
    _wrong(TRAIN + "--preprocessing.crop 300", "crop"),
    _wrong(TRAIN + "--preprocessing.crop 0", "crop"),
    _wrong(TRAIN + "--preprocessing.scale nan", "scale"),
    _wrong(TRAIN + "--preprocessing.mean median", "mean"),
    _wrong(TRAIN + "--augmentation.color-sigma -1", "color_sigma"),
    _wrong(TRAIN + "--augmentation.blur 1", "--augmentation.blur"),
    _wrong(TRAIN + "--device tpu", "tpu"),
    _wrong(TRAIN + "--device cuda:99", "cuda:99"),
    _wrong(TRAIN + "--device ''", "--device"),
    _wrong(TRAIN + "--device xla", "xla"),
    _wrong(TRAIN + "--device meta", "meta"),
    Wrong((*TRAIN.split(), "--device", "cpu\n"), "cpu\\n"),
    _wrong(TRAIN + "--threads 0", "--threads"),
    _wrong(TRAIN + "--threads -1", "--threads"),
    _wrong(TRAIN + "--threads two", "threads"),
    _wrong(TRAIN + "--threads 99999999999999999999", "--threads"),
    _wrong(TRAIN + "--workers -1", "--workers"),
    _wrong(TRAIN + "--workers many", "workers"),
    _wrong(TRAIN + "--resume --fresh", "--resume"),
    _wrong(TRAIN + "--resume yes", "yes"),
    _wrong(TRAIN + "--out run", "run"),
    _wrong(TRAIN + "--out text.txt", "text.txt"),
    _wrong(TRAIN + "--out text.txt/new", "text.txt"),
    _wrong(TRAIN + "--out photos --fresh", "photos"),
    _wrong(TRAIN + "--out photos --resume", "photos"),
    _wrong(TRAIN + "--out ''", "--out"),
    _wrong(TRAIN + "--out run --resume --seed 5", "seed"),
    Wrong((*TRAIN.split(), "--out", "o" * 300), "ooo"),
    _wrong(TRAIN + "--init-from nowhere", "nowhere"),
    _wrong(TRAIN + "--init-from text.txt", "text.txt"),
    _wrong(TRAIN + "--init-from empty", "empty"),
    _wrong(TRAIN + "--init-from damaged", "damaged"),
    _wrong(TRAIN + "--init-from ''", "--init-from"),
    _wrong("train quickstart --out new --device cpu --data nowhere", "nowhere", 4),
    _wrong("train quickstart --out new --device cpu --data imagenete", "imagenete", 4),
    _wrong("train quickstart --out new --device cpu --data cifar10 --data-root empty", "cifar10", 4),
    _wrong("train quickstart --out new --device cpu --data imagenet --data-root nowhere", "imagenet", 4),
    _wrong("train quickstart --out new --device cpu --data text.txt", "text.txt", 4),
    _wrong("train quickstart --out new --device cpu --data text.jpg", "text.jpg", 4),
    _wrong("train quickstart --out new --device cpu --data empty", "empty", 4),
    _wrong("train quickstart --out new --device cpu --data ''", "--data"),
    _wrong("train quickstart --out new --device cpu --data oneclass", "only class", 4),
    _wrong("train quickstart --out new --device cpu --data list-missing.csv", "gone.png", 4),
    _wrong("train quickstart --out new --device cpu --data list-columns.csv", "list-columns.csv", 4),
    _wrong("train quickstart --out new --device cpu --data list-empty.csv", "list-empty.csv", 4),
    _wrong("train quickstart --out new --device cpu --data text.tar", "text.tar", 4),
    _wrong("train quickstart --out new --device cpu --data halfpacked", "halfpacked", 1, 4),
    Wrong((*"train quickstart --out new --device cpu --data".split(), "no\nwhere"), "no\\nwhere", (4,)),
    Wrong((*"train quickstart --out new --device cpu --data".split(), "d" * 5000), "ddd"),
    Wrong((*"train quickstart --out new --device cpu --data".split(), "caf\udce9"), "caf\\udce9", (4,)),
    Wrong((*TRAIN.split(), "--epochs", "\udce9"), "epochs"),
    Wrong((*TRAIN.split(), "--epochs", "9" * 5000), "epochs"),
    Wrong((*TRAIN.split(), "--\u00e9poques", "3"), "poques"),
    Wrong((*TRAIN.split(), "--" + "y" * 1000, "3"), "yyy"),
]
READING = [
    _wrong("prepare", "SOURCE"),
    _wrong("prepare photos", "packed"),
    _wrong("prepare photos new extra", "extra"),
    _wrong("prepare nowhere new", "nowhere", 4),
    _wrong("prepare text.txt new", "text.txt", 4),
    _wrong("prepare text.tar new", "text.tar", 4),
    _wrong("prepare empty new", "empty", 4),
    _wrong("prepare packed new", "packed", 4),
    _wrong("prepare photos text.txt", "text.txt", 1, 2, 4),
    _wrong("prepare photos run", "run", 1, 2, 4),
    _wrong("prepare photos photos", "photos", 1, 2, 4),
    _wrong("prepare photos new --size 0", "size", 2),
    _wrong("prepare photos new --size -5", "size", 2),
    _wrong("prepare photos new --size 1000000", "size", 2),
    _wrong("prepare photos new --size large", "size", 2),
    _wrong("prepare photos new --store png", "store", 2),
    _wrong("prepare photos new --workers 100000", "workers", 2),
    _wrong("prepare photos new --workers -2", "workers", 2),
    _wrong("prepare photos new --max-bad -1", "max", 2),
    _wrong("prepare photos new --max-bad nan", "max", 2),
    _wrong("prepare photos new --max-bad few", "max-bad", 2),
    _wrong("prepare photos new --seed x", "seed", 2),
    _wrong("prepare photos new --quality 5", "--quality", 2),
    _wrong("prepare rotten new --workers 1", "a/0.jpg", 4),
    _wrong("prepare list-missing.csv new", "gone.png", 4),
    _wrong("prepare list-columns.csv new", "list-columns.csv", 4),
    Wrong(("prepare", "locked", "new"), "locked", (4,), as_nobody=True),
    Wrong(("prepare", "photos", "locked/new", "--workers", "1"), "locked", as_nobody=True),
    Wrong(("prepare", "locked.csv", "new"), "locked.csv", (4,), as_nobody=True),
    _wrong("check", "source"),
    _wrong("check nowhere", "nowhere", 4),
    _wrong("check photos --model nowhere", "nowhere"),
    _wrong("check fashion-minst", "fashion-minst", 4),
    _wrong("check fashion-mnist --data-root text.txt", "fashion-mnist", 4),
    _wrong("check photos photos", "photos"),
    _wrong("check text.txt", "text.txt", 4),
    _wrong("check empty", "empty", 4),
    _wrong("check photos --workers -1", "workers", 2),
    _wrong("check photos --fix", "--fix", 2),
    _wrong("check photos --seed half", "seed", 2),
    Wrong(("check", "no\nwhere"), "no\\nwhere", (4,)),
    Wrong(("check", "locked"), "locked", (1, 4), as_nobody=True),
]
USING = [
    _wrong("evaluate", "models"),
    _wrong("evaluate --data packed", "models"),
    _wrong("evaluate nowhere", "nowhere"),
    _wrong("evaluate nowhere.npz", "nowhere.npz"),
    _wrong("evaluate text.npz", "text.npz"),
    _wrong("evaluate weights.npz", "weights.npz"),
    _wrong("evaluate text.txt", "text.txt"),
    _wrong("evaluate empty", "empty"),
    _wrong("evaluate photos", "photos"),
    _wrong("evaluate damaged --data packed", "damaged"),
    _wrong("evaluate nojson --data packed", "nojson"),
    _wrong("evaluate foreign --data packed", "foreign"),
    _wrong("evaluate noweights --data packed", "model.safetensors"),
    _wrong("evaluate newer --data packed", "version"),
    _wrong("evaluate run/model --device cpu", "--data"),
    _wrong(EVALUATE + "--data nowhere", "nowhere", 4),
    _wrong(EVALUATE + "--data photo", "photo", 4),
    _wrong(EVALUATE + "--data oneclass", "oneclass"),
    _wrong(EVALUATE + "--data other", "other"),
    _wrong(EVALUATE + "--split validation", "validation"),
    _wrong(EVALUATE + "--split ''", "split"),
    _wrong(EVALUATE + "--views 5", "5"),
    _wrong(EVALUATE + "--views random", "random"),
    _wrong(EVALUATE + "--views random:x", "random:x"),
    _wrong(EVALUATE + "--views random:-1", "random:-1"),
    _wrong(EVALUATE + "--batch-size 0", "batch-size"),
    _wrong(EVALUATE + "--batch-size -4", "batch-size"),
    _wrong(EVALUATE + "--precision half", "precision"),
    _wrong(EVALUATE + "--weights 1 2", "weights"),
    _wrong("evaluate run run --device cpu --weights 1", "weights"),
    _wrong("evaluate run run --device cpu --weights 0 0", "weights"),
    _wrong("evaluate run run --device cpu --weights -1 2", "weights"),
    _wrong("evaluate run run --device cpu --weights nan 1", "weights"),
    _wrong("evaluate run run --device cpu --weights a b", "weights"),
    _wrong(EVALUATE + "--save nowhere/p.npz", "nowhere"),
    _wrong(EVALUATE + "--save empty", "empty"),
    _wrong(EVALUATE + "--out nowhere/r.json", "nowhere"),
    _wrong(EVALUATE + "--out empty", "empty"),
    _wrong(EVALUATE + "--threads 0", "--threads"),
    _wrong(EVALUATE + "--top 5", "--top"),
    Wrong(("evaluate", "locked", "--data", "packed"), "locked", as_nobody=True),
    _wrong("predict", "MODEL"),
    _wrong("predict run", "images"),
    _wrong("predict photos/val/warm/0.png run", "0.png"),
    _wrong("predict nowhere photos", "nowhere"),
    _wrong("predict empty photos", "empty"),
    _wrong("predict unfinished photos", "unfinished"),
    _wrong("predict packed photos", "packed"),
    _wrong("predict damaged photos", "damaged"),
    _wrong("predict run nowhere.jpg --device cpu", "nowhere.jpg", 4),
    _wrong("predict run empty --device cpu", "empty", 4),
    _wrong("predict run text.jpg --device cpu", "text.jpg", 4),
    _wrong("predict run empty.jpg --device cpu", "empty.jpg", 4),
    _wrong("predict run cut.png --device cpu", "cut.png", 4),
    _wrong("predict run text.txt/x.jpg --device cpu", "text.txt", 4),
    Wrong(("predict", "run", "n" * 300 + ".jpg", "--device", "cpu"), "nnn", (4,)),
    Wrong(("predict", "run", "a\nb.jpg", "--device", "cpu"), "a\\nb.jpg", (4,)),
    Wrong(("predict", "run", "locked.jpg", "--device", "cpu"), "locked.jpg", (4,), as_nobody=True),
    _wrong(PREDICT + "--top 0", "--top"),
    _wrong(PREDICT + "--top -1", "--top"),
    _wrong(PREDICT + "--top best", "top"),
    _wrong(PREDICT + "--every 0", "--every"),
    _wrong(PREDICT + "--every often", "--every"),
    _wrong(PREDICT + "--every 5", "--every"),
    _wrong(PREDICT + "--picture time.png", "--picture"),
    _wrong(PREDICT + "--picture nowhere/time.png", "nowhere"),
    _wrong("predict run cut.mp4 --every 5 --device cpu", "cut.mp4", 4),
    _wrong("predict run text.txt --every 5 --device cpu", "text.txt", 4),
    _wrong(PREDICT + "--views 0", "views"),
    _wrong(PREDICT + "--views random:0", "random:0"),
    _wrong(PREDICT + "--views random:1000000000", "random:1000000000"),
    _wrong(PREDICT + "--precision int8", "precision"),
    _wrong(PREDICT + "--csv --json", "--csv"),
    _wrong(PREDICT + "--device gpu", "gpu"),
    _wrong(PREDICT + "--confidence 0.5", "--confidence"),
    _wrong("info alexnet_2013", "alexnet_2013"),
    _wrong("info nowhere/run", "nowhere/run"),
    _wrong("info empty", "empty"),
    _wrong("info text.txt", "text.txt"),
    _wrong("info damaged", "damaged"),
    _wrong("info nojson", "nojson"),
    _wrong("info alexnet_2012 --diff nothing", "nothing"),
    _wrong("info --diff alexnet_2012", "--diff"),
    _wrong("info alexnet_2012 alexnet_owt", "alexnet_owt"),
    _wrong("info alexnet_2012 --depth 2", "--depth"),
    Wrong(("info", "i" * 5000), "iii"),
    _wrong("report", "run"),
    _wrong("report nowhere", "nowhere"),
    _wrong("report empty", "empty"),
    _wrong("report text.txt", "text.txt"),
    _wrong("report run nowhere", "nowhere"),
    _wrong("report run --out page.html", "--out"),
    _wrong("report run unfinished --out nowhere/page.html", "nowhere"),
    _wrong("report run --color", "--color"),
    _wrong("bench alexnet_2013", "alexnet_2013"),
    _wrong("bench lenet", "lenet"),
    _wrong("bench --batch-size 0", "--batch-size"),
    _wrong("bench --precision float64", "precision"),
    _wrong("bench --data nowhere", "nowhere", 4),
    _wrong("bench --device quantum", "quantum"),
    _wrong("bench alexnet_2012 alexnet_owt", "alexnet_owt"),
]
INSIDE = [
    _wrong("features", "model"),
    _wrong("features run", "--out"),
    _wrong("features nowhere --out new", "nowhere"),
    _wrong(FEATURES + "--layers fc9", "fc9"),
    _wrong(FEATURES + "--layers", "layer"),
    _wrong(FEATURES + "--split night", "night"),
    _wrong(FEATURES + "--batch-size 0", "batch-size"),
    _wrong(FEATURES + "--dtype int8", "dtype"),
    _wrong("features run --out text.txt --device cpu", "text.txt"),
    _wrong("features run --out photos --device cpu", "photos"),
    _wrong("features run/model --out new --device cpu", "--data"),
    _wrong("probe minds run", "minds"),
    _wrong("probe kernel run", "kernel"),
    _wrong("probe kernels", "model"),
    _wrong("probe kernels nowhere --out new", "nowhere"),
    _wrong("probe kernels nowhere", "nowhere"),
    _wrong("probe kernels run/model", "--out"),
    _wrong("probe kernels weights.npy --out new", "weights.npy"),
    _wrong("probe kernels weights.npz --out new", "weights.npz"),
    _wrong("probe kernels text.npz --out new", "text.npz"),
    _wrong("probe kernels run --towers 2", "--towers"),
    _wrong("probe kernels kernels.npy --towers 0 --out new", "--towers"),
    _wrong("probe kernels kernels.npy --towers 3 --out new", "towers"),
    _wrong("probe kernels kernels.npy --layer conv2 --out new", "--layer"),
    _wrong("probe kernels run --layer fc6", "fc6"),
    _wrong("probe kernels run --scale log", "scale"),
    _wrong("probe kernels run --channel-order rbg", "channel-order"),
    _wrong("probe towers nowhere --out new", "nowhere"),
    _wrong("probe towers run --seed s", "seed"),
    _wrong("probe maps run --image nowhere.jpg", "nowhere.jpg", 4),
    _wrong("probe maps run --image text.jpg", "text.jpg", 4),
    _wrong("probe maps run --channels 999", "999"),
    _wrong("probe maps run --channels -1", "-1"),
    _wrong("probe maps run --channels x", "channels"),
    _wrong("probe maps run --channels 0 --top 0", "--top"),
    _wrong("probe maps run --channels 0 --layer conv9", "conv9"),
    _wrong("probe maps run --image cut.png --show 0", "--show"),
    _wrong("probe neighbors run --queries 0", "--queries"),
    _wrong("probe neighbors run --ks 0", "ks"),
    _wrong("probe neighbors run --ks", "--ks"),
    _wrong("probe neighbors run --ks 1000000", "ks"),
    _wrong("probe neighbors run --ks 1 --images 100000", "100000"),
    _wrong("probe neighbors run --ks 1 --layer fc77", "fc77"),
    _wrong("probe neighbors run --limit 0", "--limit"),
    _wrong("probe codes run --bits 7", "7"),
    _wrong("probe codes run --bits", "--bits"),
    _wrong("probe codes run --seeds 0", "--seeds"),
    _wrong("probe codes run --layer fcx", "fcx"),
    _wrong("probe tsne run --points 1", "--points"),
    _wrong("probe tsne run --perplexity 0", "perplexity"),
    _wrong("probe tsne run --perplexity nan", "perplexity"),
    _wrong("probe tsne run --perplexity 1000", "perplexity"),
    _wrong("probe saliency run --count 0", "--count"),
    _wrong("probe saliency run --scored 1 --sanity 2", "--sanity"),
    _wrong("probe saliency run nowhere.jpg", "nowhere.jpg", 4),
    _wrong("probe saliency run --data other", "other"),
    _wrong("probe linear run --images 1", "--images"),
    _wrong("probe linear run --layers fcx", "fcx"),
    _wrong("probe linear nowhere", "nowhere"),
    _wrong("probe inputs run --batch-size 0", "--batch-size"),
    _wrong("probe inputs run --shifted -1", "--shifted"),
    _wrong("probe inputs run --data other", "other"),
    _wrong("probe inputs run --split night", "night"),
    _wrong("index", "MODEL"),
    _wrong("index run --out new", "folders"),
    _wrong("index run photos", "--out"),
    _wrong("index nowhere photos --out new", "nowhere"),
    Wrong(tuple("index run nowhere --out new --device cpu".split()), "none of the images", (4,), lines=2),
    _wrong("index run empty --out new --device cpu", "empty", 4),
    _wrong("index run photos --out text.txt --device cpu", "text.txt"),
    _wrong("index run photos --out photos --device cpu", "photos"),
    _wrong("index run photos --out new --add --device cpu", "new", 4),
    _wrong("index run photos --out new --kind tree", "kind"),
    _wrong("index run photos --out new --layer fcx --device cpu", "fcx"),
    _wrong("index run photos --out index --device cpu", "index"),
    _wrong("search", "FOLDER"),
    _wrong("search index", "images"),
    _wrong("search nowhere a.jpg", "nowhere", 4),
    _wrong("search empty a.jpg", "empty", 4),
    _wrong("search run a.jpg", "run", 4),
    _wrong("search index photos/val/warm/0.png --top 0", "--top"),
    _wrong("search index photos/val/warm/0.png --model nowhere", "nowhere"),
    _wrong("search index nowhere.jpg --device cpu", "nowhere.jpg", 4),
    _wrong("search index - --picture found.png", "--picture"),
    _wrong("search index photos/val/warm/0.png --picture nowhere/x.png --device cpu", "nowhere"),
    _wrong("search index photos/val/warm/0.png --depth 3", "--depth"),
]
SERVING = [
    _wrong("serve", "MODEL"),
    _wrong("serve nowhere --port 0", "nowhere"),
    _wrong("serve text.txt --port 0", "text.txt"),
    _wrong("serve photos --port 0", "photos"),
    _wrong("serve run --port 65536", "--port"),
    _wrong("serve run --port -1", "--port"),
    _wrong("serve run --port http", "--port"),
    _wrong("serve run --port 0 --host nowhere.invalid", "--host"),
    _wrong("serve run --port 0 --host 192.0.2.1", "--host"),
    _wrong("serve run --port 0 --host ''", "--host"),
    _wrong("serve run --port 0 --threads 0", "--threads"),
    _wrong("serve run --port 0 --workers -1", "--workers"),
    _wrong("serve run --port 0 --device tpu", "tpu"),
    _wrong("serve run --port 0 --keep text.txt", "text.txt"),
    _wrong("serve run --pictures photos/val/warm/0.png", "--export"),
    _wrong("serve run --export site --index index", "--index"),
    _wrong("serve run --export site --check", "--check"),
    _wrong("serve run --export photos", "photos"),
    _wrong("serve run --export text.txt", "text.txt"),
    _wrong("serve run --export site --pictures nowhere.png --device cpu", "nowhere.png", 4),
    _wrong("serve run --export site --pictures text.txt --device cpu", "text.txt", 4),
    _wrong("serve run --port 0 --data nowhere", "nowhere", 4),
    _wrong("serve run --port 0 --index nowhere", "nowhere", 4),
    _wrong("serve run --port 0 --index photos", "photos", 4),
    _wrong("serve run --port 0 --open", "--open"),
    _wrong("serve run run --port 0", "run"),
]
WEIGHTS = [
    _wrong("pretrain nowhere --out new.safetensors", "nowhere", 4),
    _wrong("pretrain photos", "--out"),
    _wrong("pretrain photos --out new.safetensors --epochs 0", "--epochs"),
    _wrong("pretrain photos --out new.safetensors --recipe nothing", "nothing"),
    _wrong("pretrain photos --out nofolder/new.safetensors", "nofolder"),
    _wrong("weights alexnet-owt", "alexnet-owt"),
    _wrong("weights get", "get"),
    _wrong("weights get alexnet", "alexnet"),
    _wrong("weights get alexnet-owt alexnet-owt-trunk", "alexnet-owt-trunk"),
    _wrong("weights get ''", "get"),
    _wrong("weights --all", "--all"),
    _wrong("weights get nowhere.pth", "nowhere.pth"),
    _wrong("import alexnet-owt --out new", "alexnet-owt"),
    _wrong(TRAIN + "--init-from alexnet-owt-trunk", "alexnet-owt-trunk"),
    _wrong("export", "MODEL"),
    _wrong("export run --out new", "--to"),
    _wrong("export run --to onnx", "--out"),
    _wrong("export run --to tflite --out new", "tflite"),
    _wrong("export run --to onnx --out new.bin", "new.bin"),
    _wrong("export run --to hub --out photos", "photos"),
    _wrong("export nowhere --to hub --out new", "nowhere", 1),
    _wrong("export run --to hub --out nowhere/new", "nowhere"),
    _wrong("export run --to hub --out new --with-preprocessing", "--with-preprocessing"),
    _wrong("export run --to onnx --out new.onnx --license mit", "--license"),
    _wrong("export run --to safetensors --out new --pictures nowhere.png", "nowhere.png", 4),
    _wrong("export run --to torchvision --out new.pth", "torchvision", 1),
    _wrong("export run --to hub --out new --threads 0", "--threads"),
    _wrong("export run --to hub --out text.txt", "text.txt"),
    _wrong("export run --to hub --out new --format onnx", "--format"),
    _wrong("export weights.safetensors --to hub --out new", "weights.safetensors"),
    _wrong("import", "FILE"),
    _wrong("import weights.safetensors", "--out"),
    _wrong("import nowhere.pth --out new", "nowhere.pth"),
    _wrong("import text.txt --out new", "text.txt"),
    _wrong("import photos --out new", "photos"),
    _wrong("import run --out new", "run"),
    _wrong("import weights.npz --out new", "weights.npz"),
    _wrong("import weights.npy --out new", "weights.npy"),
    _wrong("import photos/val/warm/0.png --out new", "0.png"),
    _wrong("import empty.jpg --out new", "empty.jpg"),
    _wrong("import weights.safetensors --out photos", "photos"),
    _wrong("import weights.safetensors --out text.txt", "text.txt"),
    _wrong("import weights.safetensors --out new --classes nowhere", "nowhere"),
    _wrong("import weights.safetensors --out new --classes empty.jpg", "empty.jpg"),
    _wrong("import weights.safetensors --out new --classes text.txt", "1 names"),
    _wrong("import weights.safetensors --out new --network alexnet", "alexnet"),
    _wrong("import weights.safetensors --out new --network alexnet_2012", "alexnet_2012"),
    _wrong("import weights.safetensors --out new --seed x", "--seed"),
    Wrong(tuple("import locked.jpg --out open/new".split()), "locked.jpg", as_nobody=True),
]
TRYING = [
    _wrong("baseline forest --data packed", "forest"),
    _wrong("baseline pixels", "--data"),
    _wrong("baseline pixels --data nowhere", "nowhere", 4),
    _wrong("baseline pixels --data empty", "empty", 4),
    _wrong("baseline pixels --data packed --side 0", "--side"),
    _wrong("baseline pixels --data packed --side -1", "--side"),
    _wrong("baseline pixels --data packed --classifier tree", "classifier"),
    _wrong("baseline pixels --data packed --train-images 0", "--train-images"),
    _wrong("baseline pixels --data packed --threads 0", "--threads"),
    _wrong("baseline pixels --data packed --k 3", "--k"),
    _wrong("baseline sift-fisher --data packed --gaussians 0", "--gaussians"),
    _wrong("baseline sift-fisher --data packed --bands 0", "--bands"),
    _wrong("baseline sift-fisher --data packed --gaussians x", "gaussians"),
    _wrong("baseline kernel-svm --data packed --train-images 0", "--train-images"),
    _wrong("baseline kernel-svm --data packed --train-images -7", "--train-images"),
    _wrong("baseline kernel-svm --data packed --side 0", "--side"),
    _wrong("claims try", "try"),
    _wrong("claims list C99", "C99"),
    _wrong("claims list --all", "--all"),
    _wrong("claims run", "claim"),
    _wrong("claims run C99 --out new", "C99"),
    _wrong("claims run lnr --out new", "lnr"),
    _wrong("claims run C1 --out new", "C1"),
    _wrong("claims run lrn --seeds 0", "--seeds"),
    _wrong("claims run lrn --seeds three", "seeds"),
    _wrong("claims run lrn --scale large --out new", "large"),
    Wrong(tuple("claims run lrn --scale cifar10 --data-root empty --out new".split()), "cifar10", (4,), lines=2),
    _wrong("claims run lrn --scale smoke --device tpu --out new", "tpu"),
    _wrong("claims run lrn --epochs 3", "--epochs"),
    _wrong("claims run lrn --scale smoke --out text.txt --device cpu", "text.txt"),
    _wrong("claims report --results text.txt", "text.txt"),
    _wrong("claims report --results empty --out nowhere/claims.html", "nowhere"),
    _wrong("claims report C1", "C1"),
    Wrong(("claims", "list", "C\n1"), "C\\n1"),
    _wrong("selftest everything", "everything"),
    _wrong("cache photos", "photos"),
    _wrong("cache --remove nothing", "nothing"),
    _wrong("cache --yes", "--yes"),
    _wrong("cache --prune --remove nothing", "--remove"),
    _wrong("selftest --only luck", "luck"),
    _wrong("selftest --out nowhere/r.json", "nowhere"),
    _wrong("selftest --out empty", "empty"),
    _wrong("selftest --quick --only kill", "--quick"),
    # completion, and files of settings
    _wrong("completion tcsh", "tcsh"),
    _wrong("completion", "SHELL"),
    _wrong("completion bash zsh", "zsh"),
    _wrong("train -c run/model/config.json --out new", "config.json"),
    _wrong("train -c photos --out new", "photos/config.json"),
    _wrong("train -c", "-c"),
    _wrong("train -c weights.npy --out new", "weights.npy"),
    _wrong("bench -c run/config.json --plam", "--plam"),
]
WRONG = [*VERBS, *TRAINING, *READING, *USING, *INSIDE, *SERVING, *WEIGHTS, *TRYING]


def build_world(root: Path) -> None:
    """What the invocations name: photographs, a packed set, a finished run, an index, and things that are none of these."""
    from dataclasses import replace

    import numpy as np
    import safetensors.torch
    import torch
    from PIL import Image

    from alexnet.core.device import Machine
    from alexnet.data.prepare import prepare
    from alexnet.evaluation.predict import load
    from alexnet.models import create_model
    from alexnet.probes.search import build_index
    from alexnet.recipes import recipe
    from alexnet.recipes.run import train

    random = np.random.default_rng(0)

    def image(path: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / path)

    for label in ("kühl", "warm"):
        for i in range(6):
            image(f"photos/train/{label}/{i}.png")
        for i in range(3):
            image(f"photos/val/{label}/{i}.png")
    for i in range(10):
        image(f"other/a/{i}.png")
        image(f"other/b/{i}.png")
    for i in range(4):
        image(f"oneclass/a/{i}.png")
        for label in ("a", "b"):
            (root / "rotten" / label).mkdir(parents=True, exist_ok=True)
            (root / "rotten" / label / f"{i}.jpg").write_text("text")
    data = prepare(root / "photos", root / "packed", size=36, workers=1)
    shutil.copytree(root / "packed", root / "halfpacked")
    (root / "halfpacked" / "train.images.npy").unlink()

    base = recipe("quickstart")
    fields = {"input_size": 32, "fc_units": (16, 16), "conv_channels": (8,) * 5, "conv_kernels": (5, 3, 3, 3, 3)}
    config = replace(
        base,
        data="packed",
        size=36,
        preprocessing=replace(base.preprocessing, resize=36, crop=32),
        model=replace(base.model, conv_padding=(2, 1, 1, 1, 1), **fields),
        epochs=1,
        batch_size=8,
    )
    train(config, root / "run", Machine(device=torch.device("cpu"), quiet=True), data=data, report=False)
    build_index(load(root / "run"), [root / "photos"], root / "index", model=root / "run")

    (root / "unfinished").mkdir()
    shutil.copy(root / "run" / "config.json", root / "unfinished")
    for name in ("damaged", "noweights", "nojson", "foreign", "newer"):
        shutil.copytree(root / "run" / "model", root / name)
    weights = bytearray((root / "damaged" / "model.safetensors").read_bytes())
    weights[-3] ^= 4
    (root / "damaged" / "model.safetensors").write_bytes(weights)
    (root / "noweights" / "model.safetensors").unlink()
    (root / "nojson" / "config.json").write_text('{"format": ')
    (root / "foreign" / "config.json").write_text('{"architectures": ["AlexNet"]}')
    document = json.loads((root / "newer" / "config.json").read_text())
    (root / "newer" / "config.json").write_text(json.dumps({**document, "version": 99}))

    (root / "empty").mkdir()
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    for name in ("text.txt", "text.jpg", "text.tar", "text.npz", "locked.jpg"):
        (root / name).write_text("only text\n")
    (root / "empty.jpg").touch()
    (root / "cut.png").write_bytes((root / "photos/val/warm/0.png").read_bytes()[:300])
    (root / "cut.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2\0\0\1\0mdat")
    (root / "list-missing.csv").write_text("path,label\ngone.png,a\nphotos/val/warm/0.png,b\n")
    (root / "list-columns.csv").write_text("file;class\nphotos/val/warm/0.png;b\n")
    (root / "list-empty.csv").touch()
    (root / "locked.csv").write_text("path,label\n")
    (root / "locked").mkdir()
    np.save(root / "weights.npy", np.zeros((3, 3), dtype=np.float32))
    np.savez(root / "weights.npz", a=np.zeros(3))
    safetensors.torch.save_file(create_model("lenet").state_dict(), root / "weights.safetensors")
    np.save(root / "kernels.npy", np.random.default_rng(0).normal(size=(8, 3, 5, 5)).astype(np.float32))
    for name in ("locked", "locked.csv", "locked.jpg"):
        (root / name).chmod(0)


def answer(wrong: Wrong, world: Path) -> Answer:
    """What the command line says, called in this process."""
    from alexnet.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, cpu, wall = Path.cwd(), time.process_time(), time.perf_counter()
    os.chdir(world)
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(wrong.arguments)
    except SystemExit as exit:
        code = int(exit.code or 0)
    finally:
        os.chdir(before)
    return Answer(code, out.getvalue(), err.getvalue(), time.perf_counter() - wall, time.process_time() - cpu)


def answer_in_child(wrong: Wrong, world: Path) -> Answer:
    """The same in a fork of this process, which should have imported torch and nothing more; its output, that of the
    libraries included, goes to files."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                signal.alarm(60)
                os.chdir(world)
                if wrong.as_nobody and os.geteuid() == 0:
                    import alexnet.recipes.run  # noqa: F401, Python itself may be out of reach afterwards

                    os.setgroups([])
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                from alexnet.cli import main

                try:
                    main(wrong.arguments)
                except SystemExit as exit:
                    sys.stderr.flush()
                    os._exit(int(exit.code or 0))
                except BaseException:
                    sys.excepthook(*sys.exc_info())
            os._exit(70)
        _, status, used = os.wait4(child, 0)
        seconds = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        texts = [file.read().decode("utf-8", "replace") for file in (out, err)]
    return Answer(os.waitstatus_to_exitcode(status), *texts, seconds, used.ru_utime + used.ru_stime)


def remove_new(world: Path) -> bool:
    """Whether a command left ``new`` behind, the place that most invocations name to write to."""
    new = world / "new"
    was_there = new.exists()
    shutil.rmtree(new, ignore_errors=True)
    return was_there


REMEDY = re.compile(
    r"; |`alexnet |must be |needs |\b(add|take|use|name|give|choose|remove|make|raise)\b"
    r"|: (missing|truncated|not an image|too large|unsupported format|no permission|empty|damaged)( \(|$)"
)
"""What comes after the fault, what must be, or what to do; of one image among others, its documented reason."""


def own_words(message: str, arguments: Sequence[str]) -> str:
    """The message without paths and without what the user wrote."""
    for argument in sorted({a for a in arguments if len(a) > 3}, key=len, reverse=True):
        message = message.replace(printable(argument), "")
    return re.sub(r"[^\s,;:()'`]*/[^\s,;()'`]*", "", message)


def faults_of(wrong: Wrong, got: Answer) -> list[str]:
    """What is wrong with an answer."""
    lines = got.err.splitlines()
    message = lines[-1] if lines else ""
    faults = []
    if got.code not in wrong.codes:
        faults.append(f"exit {got.code}, not {wrong.codes}")
    if len(lines) != wrong.lines:
        faults.append(f"{len(lines)} lines on stderr")
    if not message.startswith("alexnet: "):
        faults.append("does not begin with alexnet:")
    if (length := len(own_words(message, wrong.arguments))) > MAX_MESSAGE:
        faults.append(f"{length} characters")
    if "Traceback" in got.err + got.out or "--debug" in message:
        faults.append("not foreseen")
    if not message.isprintable():
        faults.append("control characters")
    if wrong.names.lower().replace("-", "_") not in message.lower().replace("-", "_").replace("\\\\", "\\"):
        faults.append(f"does not name {wrong.names}")
    if not REMEDY.search(message):
        faults.append("no rule or remedy")
    return faults


if __name__ == "__main__":  # the answers of children that were forked with nothing but torch imported, as JSON
    import torch  # noqa: F401

    place = Path(sys.argv[1])
    answers = []
    for wrong in WRONG:
        answers.append(answer_in_child(wrong, place))
        remove_new(place)
    print(json.dumps([vars(got) for got in answers]))
