from __future__ import annotations

import torch
from torch import nn

from alexnet.models import create_model


def test_lenet_is_the_textbook_network():
    model = create_model("lenet")
    textbook = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip
    textbook.load_state_dict(dict(zip(textbook.state_dict(), model.state_dict().values(), strict=True)))
    x_BCHW = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(model(x_BCHW), textbook(x_BCHW))


def test_pooling_and_nonlinearity_are_switches():
    x_BCHW = torch.rand(2, 1, 28, 28)
    logits = [create_model("lenet", **fields)(x_BCHW) for fields in ({}, {"pooling": "max"}, {"activation": "relu"})]
    assert not torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_lenet_reads_other_sizes_and_colors():
    model = create_model("lenet", input_size=32, in_channels=3, num_classes=4)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 4)
