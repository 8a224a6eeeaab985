"""The functions and names that users of timm know, on every network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.predict import load
from alexnet.models import build_model, create_model, default_preprocessing, list_models, model_config
from alexnet.models.folder import load_model_folder, save_model_folder

NAMES = list_models()


def fields_of(name: str) -> dict[str, Any]:
    """Fields that make a network small."""
    config = model_config(name)
    if not hasattr(config, "fc_units"):
        return {}
    return {"input_size": 99, "conv_channels": (8,) * len(config.conv_channels), "fc_units": (16, 12), "init": "he"}


def pixels(model: nn.Module, side: int | None = None) -> Tensor:
    c, generator = model.config, torch.Generator().manual_seed(5)
    return torch.randn(2, c.in_channels, side or c.input_size, side or c.input_size, generator=generator) * 50


@pytest.mark.parametrize("name", NAMES)
def test_head_of_features_is_the_network_and_a_new_head_leaves_the_rest(name: str):
    model = create_model(name, num_classes=5, **fields_of(name)).eval()
    x_BCHW = pixels(model)
    with torch.no_grad():
        maps_BCHW, logits_BK = model.forward_features(x_BCHW), model(x_BCHW)
        row_BD = model.forward_head(maps_BCHW, pre_logits=True)
        assert maps_BCHW.ndim == 4
        assert row_BD.shape == (2, model.num_features)
        assert torch.equal(model.forward_head(maps_BCHW), logits_BK)
        assert torch.equal(model.get_classifier()(row_BD), logits_BK)

        before = {key: tensor.clone() for key, tensor in model.state_dict().items() if not key.startswith(model.HEAD)}
        model.reset_classifier(0)
        assert model.num_classes == model.config.num_classes == 0
        assert isinstance(model.get_classifier(), nn.Identity)
        assert torch.equal(model(x_BCHW), row_BD)
        assert model.state_dict().keys() == before.keys()
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
        headless = create_model(name, num_classes=0, **fields_of(name)).eval()
        assert torch.equal(headless(x_BCHW), row_BD)  # the same seed, so the same weights below

        model.reset_classifier(3)
        assert model(x_BCHW).shape == (2, 3)
        assert model.config == model_config(name, num_classes=3, **fields_of(name))
        drawn = model.get_classifier().weight.clone()
        model.reset_classifier(3, seed=1)
        assert not torch.equal(model.get_classifier().weight, drawn)
        model.reset_classifier(3)
        assert torch.equal(model.get_classifier().weight, drawn)


def test_a_new_head_has_the_type_and_the_mode_of_the_network():
    model = create_model("lenet").double().eval()
    model.reset_classifier(4)
    assert model.output.weight.dtype == torch.float64
    assert not model.output.training
    with pytest.raises(ValueError, match="num_classes is -1"):
        model.reset_classifier(-1)
    assert model.config.num_classes == 4
    with pytest.raises(TypeError):
        model.reset_classifier(2.5)


@pytest.mark.parametrize("classes", [["a", "b", "c"], []])
def test_a_model_with_a_new_head_is_saved_and_loaded(classes: list[str], tmp_path):
    model = create_model("lenet", seed=3).eval()
    model.reset_classifier(len(classes))
    save_model_folder(tmp_path / "model", model, "lenet", default_preprocessing("lenet"), classes)
    found = load_model_folder(tmp_path / "model")
    assert found.model.config == model.config
    with torch.no_grad():
        assert torch.equal(found.model(pixels(model)), model(pixels(model)))
    assert found.model.pretrained_cfg == model.pretrained_cfg
    if not classes:
        with pytest.raises(UsageError, match="saved without its last layer"):
            load(tmp_path / "model").require_answers()


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_a_backbone_are_those_of_the_network(name: str):
    model = create_model(name, num_classes=5, **fields_of(name)).eval()
    backbone = create_model(name, features_only=True, num_classes=5, **fields_of(name)).eval()
    assert backbone.state_dict().keys() < model.state_dict().keys()
    with torch.no_grad():
        maps = backbone(pixels(model))
        assert torch.equal(maps[-1], model.forward_features(pixels(model)))
    info = backbone.feature_info
    assert info.channels() == [x_BCHW.shape[1] for x_BCHW in maps]
    assert info.out_indices == tuple(range(len(maps)))
    for x_BCHW, reduction in zip(maps, info.reduction(), strict=True):
        assert abs(x_BCHW.shape[2] - model.config.input_size / reduction) <= 2


@pytest.mark.parametrize(("asked", "indices"), [(2, (3, 4)), ((1, 3), (1, 3)), ((-1,), (4,)), (None, (0, 1, 2, 3, 4))])
def test_a_backbone_stops_at_the_last_stage_that_is_asked_for(asked: Any, indices: tuple[int, ...]):
    backbone = create_model("alexnet_2012", features_only=True, out_indices=asked, **fields_of("alexnet_2012")).eval()
    assert backbone.feature_info.out_indices == indices
    assert list(backbone)[-1] == f"stage{indices[-1] + 1}"
    assert backbone.feature_info.module_name() == [f"stage{i + 1}" for i in indices]
    assert len(backbone(torch.zeros(1, 3, 128, 160))) == len(indices)  # any size


@pytest.mark.parametrize("asked", [(5,), (-6,), (), 6, ("conv1",), (True,)])
def test_stages_that_are_not_there_are_refused(asked: Any):
    with pytest.raises(UsageError, match="maps are 0 to 4"):
        create_model("alexnet_2012", features_only=True, out_indices=asked, **fields_of("alexnet_2012"))


def test_reductions_and_widths_of_the_papers_network():
    info = build_model(model_config("alexnet_2012"), name="alexnet_2012", seed=None).feature_info
    assert [(i["num_chs"], i["reduction"]) for i in info] == [(96, 8), (256, 16), (384, 16), (384, 16), (256, 32)]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_configuration_for_timm_names_is_there(name: str):
    model = build_model(model_config(name), name=name, seed=None)
    cfg, c, state = model.pretrained_cfg, model.config, model.state_dict()
    assert cfg["input_size"] == (c.in_channels, c.input_size, c.input_size)
    assert f"{cfg['first_conv']}.weight" in state
    assert f"{cfg['classifier']}.weight" in state
    assert len(cfg["mean"]) == len(cfg["std"]) == c.in_channels
    assert cfg["num_classes"] == model.num_classes == c.num_classes


def test_colors_for_timm_are_those_of_the_preprocessing():
    owt = build_model(model_config("alexnet_owt"), name="alexnet_owt", seed=None).pretrained_cfg
    assert owt["mean"] == pytest.approx((0.485, 0.456, 0.406))
    assert owt["std"] == pytest.approx((0.229, 0.224, 0.225))
    assert owt["crop_pct"] == 224 / 256
    paper = build_model(model_config("alexnet_2012"), name="alexnet_2012", seed=None)
    assert paper.pretrained_cfg["std"] == pytest.approx((1 / 255,) * 3)  # 0..255 less the mean
    paper.preprocessing = Preprocessing(mean="none", scale=1 / 255)
    assert (paper.pretrained_cfg["mean"], paper.pretrained_cfg["std"]) == ((0.0,) * 3, (1.0,) * 3)


def test_timms_names_of_fields():
    model = create_model("alexnet_2012", in_chans=1, drop_rate=0.2, **fields_of("alexnet_2012"))
    assert (model.config.in_channels, model.config.dropout_rate) == (1, 0.2)
    assert create_model("lenet", in_chans=3, drop_rate=0.0).config.in_channels == 3
    with pytest.raises(UsageError, match="lenet has no dropout"):
        create_model("lenet", drop_rate=0.5)
    with pytest.raises(UsageError, match="in_chans and in_channels are the same"):
        create_model("lenet", in_chans=3, in_channels=3)
    with pytest.raises(UsageError, match="needs features_only=True"):
        create_model("lenet", out_indices=(0,))


@pytest.mark.parametrize(
    ("name", "field", "nearest"),
    [
        ("alexnet_2012", "num_clases", "num_classes"),
        ("alexnet_owt", "tower", "towers"),
        ("lenet", "input_sise", "input_size"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest(name: str, field: str, nearest: str):
    with pytest.raises(UsageError, match=rf"{name}\.{field}: unknown field \(perhaps {nearest}\)"):
        create_model(name, **{field: 2})


def test_names_of_networks_by_a_pattern():
    assert list_models("alexnet*") == [name for name in NAMES if name.startswith("alexnet")]
    assert list_models(["lenet", "*net"]) == ["caffenet", "zfnet", "lenet"]
    assert list_models("resnet*") == []
    assert list_models() == NAMES


# Inputs of other sizes ------------------------------------------------------------------------------------------------


def narrow(name: str) -> nn.Module:
    """The usual input size, few kernels."""
    return create_model(name, conv_channels=(8,) * 5, fc_units=(16, 16), init="he", num_classes=5).eval()


@pytest.mark.parametrize(("name", "least"), [("alexnet_owt", 63), ("alexnet_2012", 64)])
def test_features_of_any_size_from_the_smallest(name: str, least: int):
    model = narrow(name)
    for height, width, maps in ((least, least, (1, 1)), (least, 224, (1, 6)), (300, 260, (8, 7))):
        assert model.forward_features(torch.zeros(1, 3, height, width)).shape[2:] == maps
    with pytest.raises(UsageError, match=f"at least {least} pixels a side, but the batch has shape"):
        model.forward_features(torch.zeros(1, 3, least - 1, 224))
    with pytest.raises(UsageError, match="3 channels"):
        model.forward_features(torch.zeros(1, 1, 224, 224))


def test_logits_of_another_size_are_those_of_averaged_maps_if_asked_for():
    # torchvision's alexnet: AdaptiveAvgPool2d((6, 6)) before its classifier.
    model = narrow("alexnet_owt")
    x_BCHW = pixels(model, 320)
    with pytest.raises(UsageError, match=r"forward_head\(forward_features\(x\)\)"):
        model(x_BCHW)
    with torch.no_grad():
        maps_BCHW = model.forward_features(x_BCHW)
        assert maps_BCHW.shape[2:] == (9, 9)
        row_BD = nn.AdaptiveAvgPool2d((6, 6))(maps_BCHW).flatten(1)
        expected = model.fc8(model.fc7(model.fc6(row_BD).relu()).relu())
        assert torch.equal(model.forward_head(maps_BCHW), expected)


def test_networks_whose_weights_belong_to_places_refuse_another_size():
    local = create_model("alexnet_2012", unshared=("conv3",), **fields_of("alexnet_2012"))
    for model in (local, create_model("cifar_13pct"), create_model("lenet")):
        with pytest.raises(UsageError, match="reads images of shape"):
            model.forward_features(pixels(model, model.config.input_size + 8))
