"""Pre-training by the number of labeled images: what is learned from which images, and where training starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from alexnet.claims import labels, transfer
from alexnet.claims.experiment import arms_of, vary
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.labels import from_trunk
from alexnet.claims.laboratory import plain_result
from alexnet.claims.scales import find_scale
from alexnet.core.errors import UsageError
from alexnet.models.alexnet import alexnet_owt
from alexnet.training.initial import load_initial, save_initial

SCALE = find_scale("smoke")


def test_the_autoencoder_sees_all_images_and_the_labels_are_a_tenth(lab, monkeypatch):
    arms = arms_of(EXPERIMENTS["few-labels"], SCALE)
    arm, config = arms["few-labels-autoencoder-first"]
    assert (config.train_images, config.epochs) == (9, 8)  # of 96 images, in four times two passes
    seen = []
    pretrain = transfer.pretrain

    def spy(config, data, *, epochs, **rest):
        seen.append((config.train_images, epochs))
        return pretrain(config, data, epochs=epochs, **rest)

    monkeypatch.setattr(transfer, "pretrain", spy)
    result = arm.result(lab, config)
    assert seen == [(96, 1)]
    assert result["n_train"] == 9
    assert {name: config.train_images for name, (_, config) in arms.items()} == {
        **dict.fromkeys(("base", "autoencoder-first"), 96),
        **dict.fromkeys(("few-labels", "few-labels-autoencoder-first"), 9),
    }


def test_the_trunk_is_where_training_starts(lab, monkeypatch, tmp_path):
    config = replace(SCALE.network, epochs=1)
    plain_result(lab, config)
    given = load_initial(lab.run_folder(config))
    trunk = {name: tensor for name, tensor in given.tensors.items() if name.startswith("conv")}
    save_initial(replace(given, tensors=trunk, classes=()), tmp_path / "trunk.safetensors")
    monkeypatch.setattr(labels, "TRUNK", str(tmp_path / "trunk.safetensors"))
    frozen = vary(config, {"optimizer.layer_lr": tuple((f"conv{i}", 0.0) for i in range(1, 6)), "seed": 1})
    from_trunk(lab, frozen)
    now = load_initial(lab.run_folder(frozen, "trunk")).tensors
    assert all(torch.equal(now[name], tensor) for name, tensor in trunk.items())
    assert not torch.equal(now["fc8.weight"], given.tensors["fc8.weight"])


def test_without_the_trunk_nothing_is_trained(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))  # the user's may hold it
    monkeypatch.setattr("alexnet.claims.laboratory.train", lambda *_, **__: pytest.fail("trained"))
    first, *_ = arms_of(EXPERIMENTS["trunk-labels"], find_scale("imagenette")).values()
    assert first[0].result is from_trunk
    with pytest.raises(UsageError, match="alexnet weights get alexnet-owt-trunk"):
        from_trunk(lab, replace(SCALE.network, seed=2))


def test_the_network_is_the_one_that_the_trunk_is_of():
    arms = arms_of(EXPERIMENTS["trunk-labels"], find_scale("imagenette"))
    assert {config.model for _, config in arms.values()} == {alexnet_owt()}
    steps = {name: config.train_images * config.epochs / config.batch_size for name, (_, config) in arms.items()}
    assert steps["trunk-100"] == steps["scratch-100"] == 937.5
    assert steps["trunk-1000"] == steps["scratch-1000"] == 1875
