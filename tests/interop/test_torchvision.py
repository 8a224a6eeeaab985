from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from alexnet.core.errors import AlexNetError
from alexnet.interop.torchvision import from_torchvision, to_torchvision
from alexnet.models import create_model


class TorchvisionAlexNet(nn.Module):
    """torchvision's module, stated again: same keys, same shapes, same order of operations."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x_BCHW)), 1))


@pytest.fixture(scope="module")
def theirs() -> TorchvisionAlexNet:
    torch.manual_seed(0)
    return TorchvisionAlexNet(num_classes=12).eval()


def test_logits_and_gradients_are_torchvisions(theirs: TorchvisionAlexNet):
    ours = from_torchvision(theirs.state_dict())
    x_BCHW = torch.randn(2, 3, 224, 224)
    expected = theirs(x_BCHW)
    assert expected.shape == (2, 12)
    torch.testing.assert_close(ours(x_BCHW), expected)
    ours(x_BCHW).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.conv1.weight.grad, theirs.features[0].weight.grad)
    torch.testing.assert_close(ours.fc6.weight.grad, theirs.classifier[1].weight.grad)


def test_a_safetensors_file_loads_like_the_state_dict(theirs: TorchvisionAlexNet, tmp_path: Path):
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "alexnet.safetensors")
    ours = from_torchvision(tmp_path / "alexnet.safetensors")
    for name, parameter in from_torchvision(theirs.state_dict()).state_dict().items():
        assert torch.equal(ours.state_dict()[name], parameter)


def test_the_way_back_gives_torchvision_its_own_keys_and_values(theirs: TorchvisionAlexNet):
    back = to_torchvision(from_torchvision(theirs.state_dict()))
    assert list(back) == list(theirs.state_dict())
    theirs.load_state_dict(back)  # strict
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in back.items())


def test_training_ours_leaves_the_source_alone(theirs: TorchvisionAlexNet):
    before = theirs.classifier[6].bias.detach().clone()
    with torch.no_grad():
        from_torchvision(theirs.state_dict()).fc8.bias.add_(1)
    assert torch.equal(theirs.classifier[6].bias, before)


def test_wrong_weights_are_refused_by_key_and_shape(theirs: TorchvisionAlexNet):
    wrong = {**theirs.state_dict(), "classifier.4.weight": torch.zeros(2, 2), "classifier.7.bias": torch.zeros(3)}
    del wrong["features.0.bias"]
    with pytest.raises(AlexNetError) as caught:
        from_torchvision(wrong)
    assert str(caught.value) == (
        "state dict: these weights are of another network: conv1.bias: not in the file; "
        "fc7.weight: file (2, 2), model (4096, 4096); classifier.7.bias: not in the model"
    )


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(AlexNetError, match=r"none\.pth: no such file"):
        from_torchvision(tmp_path / "none.pth")


def test_only_torchvisions_network_can_be_given_to_it():
    for model in (create_model("lenet"), create_model("alexnet_owt", activation="tanh", fc_units=(8, 8))):
        with pytest.raises(AlexNetError, match="only alexnet_owt"):
            to_torchvision(model)
