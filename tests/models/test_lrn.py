from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alexnet.models import lrn
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm, reference


def maps(*shape: int, channels_last: bool = False, dtype: torch.dtype = torch.float64) -> Tensor:
    x_BCHW = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    return x_BCHW.contiguous(memory_format=torch.channels_last) if channels_last else x_BCHW


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("towers", "expected"),
    [
        (1, [1 / (1 + 5), 2 / (1 + 14), 3 / (1 + 29), 4 / (1 + 25)]),  # windows 1 4 | 1 4 9 | 4 9 16 | 9 16
        (2, [1 / (1 + 5), 2 / (1 + 5), 3 / (1 + 25), 4 / (1 + 25)]),  # 1 4 | 1 4 || 9 16 | 9 16
    ],
)
def test_four_channels_by_hand(towers: int, expected: list[float], channels_last: bool):
    x_BCHW = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1).expand(2, 4, 3, 5)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    norm = LocalResponseNorm(size=3, alpha=1.0, alpha_times="sum", beta=1.0, k=1.0, towers=towers)
    torch.testing.assert_close(norm(x_BCHW), torch.tensor(expected).view(1, 4, 1, 1).expand(2, 4, 3, 5))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_values_and_gradients_are_those_of_the_written_formula(size, towers, beta, channels_last, monkeypatch):
    monkeypatch.setattr(lrn, "PIECE_ELEMENTS", 100)  # several pieces, the last one shorter
    settings = {"size": size, "alpha": 0.3, "alpha_times": "sum", "beta": beta, "k": 2.0, "towers": towers}
    x_BCHW = maps(3, 8, 5, 4, channels_last=channels_last).requires_grad_()
    ours, formula = LocalResponseNorm(**settings)(x_BCHW), reference(x_BCHW, **settings)
    torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-14)
    g_BCHW = maps(3, 8, 5, 4) * 7
    (ours_dx,), (formula_dx,) = (torch.autograd.grad(y, x_BCHW, g_BCHW) for y in (ours, formula))
    torch.testing.assert_close(ours_dx, formula_dx, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("norm", [LocalResponseNorm(alpha=0.3, towers=2), MapResponseNorm(size=3, alpha=2.0)])
def test_gradient_agrees_with_finite_differences(norm, channels_last, monkeypatch):
    monkeypatch.setattr(lrn, "PIECE_ELEMENTS", 50)
    assert torch.autograd.gradcheck(norm, maps(2, 6, 3, 4, channels_last=channels_last).requires_grad_())


def test_alpha_of_the_mean_is_what_torch_computes():
    x_BCHW = maps(2, 12, 3, 3) * 20
    ours = LocalResponseNorm(size=5, alpha=1e-2, alpha_times="mean", beta=0.75, k=2.0)
    torch.testing.assert_close(ours(x_BCHW), torch.nn.LocalResponseNorm(5, 1e-2, 0.75, 2.0)(x_BCHW))


def test_alpha_of_the_sum_is_five_times_torchs():
    x_BCHW = maps(2, 12, 3, 3) * 20
    ours = LocalResponseNorm(size=5, alpha=1e-2, alpha_times="sum", beta=0.75, k=2.0)
    torch.testing.assert_close(ours(x_BCHW), torch.nn.LocalResponseNorm(5, 5e-2, 0.75, 2.0)(x_BCHW))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("channels", "border"), [(96, 48), (256, 128)])
def test_towers_do_not_leak_into_each_other(channels: int, border: int, channels_last: bool):
    x_BCHW = maps(2, channels, 2, 3, channels_last=channels_last) * 30
    changed = x_BCHW.clone()
    changed[:, border] *= 10
    towers, stream = LocalResponseNorm(towers=2), LocalResponseNorm(towers=1)
    assert torch.equal(towers(x_BCHW)[:, :border], towers(changed)[:, :border])
    assert not torch.equal(stream(x_BCHW)[:, :border], stream(changed)[:, :border])
    # The same for the gradient: of the first tower's outputs with respect to the second tower's inputs.
    (dx_BCHW,) = torch.autograd.grad(towers(x_BCHW.requires_grad_())[:, :border].sum(), x_BCHW)
    assert (dx_BCHW[:, border:] == 0).all()
    # A window of five in one stream reaches two channels over the border, from either side: 4 of 96 and 4 of 256.
    differs = (towers(x_BCHW) != stream(x_BCHW)).any(dim=(0, 2, 3)).nonzero().flatten()
    assert differs.tolist() == [border - 2, border - 1, border, border + 1]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "norm", [LocalResponseNorm(towers=2), MapResponseNorm(size=5, alpha=1e-3)], ids=["channels", "map"]
)
def test_bfloat16_is_the_float32_result_rounded_once(norm, channels_last):
    x_BCHW = (maps(4, 16, 7, 7, channels_last=channels_last) * 100).bfloat16()
    g_BCHW = maps(4, 16, 7, 7, dtype=torch.bfloat16)
    exact, rounded = x_BCHW.float().requires_grad_(), x_BCHW.clone().requires_grad_()
    y_exact, y_rounded = norm(exact), norm(rounded)
    y_exact.backward(g_BCHW.float())
    y_rounded.backward(g_BCHW)
    assert torch.equal(y_rounded, y_exact.bfloat16())
    assert torch.equal(rounded.grad, exact.grad.bfloat16())
    assert y_rounded.stride() == x_BCHW.stride()


def test_result_does_not_depend_on_the_size_of_the_pieces(monkeypatch):
    x_BCHW = maps(5, 8, 6, 6, channels_last=True, dtype=torch.float32)
    results = []
    for elements in (1, 64, 300, 1 << 30):
        monkeypatch.setattr(lrn, "PIECE_ELEMENTS", elements)
        results.append(LocalResponseNorm(towers=2)(x_BCHW))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_input_may_have_any_strides():
    x_BCHW = maps(3, 9, 8, 5)[:, 1:, ::2].transpose(2, 3)
    norm = LocalResponseNorm(alpha=0.3, towers=2)
    torch.testing.assert_close(norm(x_BCHW), norm(x_BCHW.contiguous()))


def test_gradient_may_come_in_another_memory_format():
    norm = LocalResponseNorm(alpha=0.3, towers=2)
    grads = []
    for channels_last in (False, True):
        x_BCHW = maps(3, 8, 5, 4, channels_last=True).requires_grad_()
        norm(x_BCHW).backward(maps(3, 8, 5, 4, channels_last=channels_last))
        grads.append(x_BCHW.grad)
    assert torch.equal(grads[0], grads[1])


@pytest.mark.parametrize("channels_last", [False, True])
def test_map_norm_by_hand(channels_last: bool):
    # Ones, 3 x 3 windows, alpha 9: each of the neighbors inside the map counts 1. Corner 4, edge 6, inside 9.
    x_BCHW = torch.ones(2, 3, 3, 4, dtype=torch.float64)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    counts = torch.tensor([[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]], dtype=torch.float64)
    expected = (1 + counts) ** -0.75
    torch.testing.assert_close(MapResponseNorm(size=3, alpha=9.0)(x_BCHW), expected.expand(2, 3, 3, 4))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [3, 5])
def test_map_norm_divides_by_the_whole_window_also_at_the_border(size: int, channels_last: bool, monkeypatch):
    monkeypatch.setattr(lrn, "PIECE_ELEMENTS", 200)
    x_BCHW = maps(3, 4, 6, 7, channels_last=channels_last).requires_grad_()
    mean_BCHW = torch.nn.functional.avg_pool2d(x_BCHW.square(), size, 1, size // 2, count_include_pad=True)
    expected = x_BCHW / (1 + 2.5 * mean_BCHW) ** 0.75
    ours = MapResponseNorm(size=size, alpha=2.5)(x_BCHW)
    torch.testing.assert_close(ours, expected)
    g_BCHW = maps(3, 4, 6, 7) + 1
    (ours_dx,), (expected_dx,) = (torch.autograd.grad(y, x_BCHW, g_BCHW) for y in (ours, expected))
    torch.testing.assert_close(ours_dx, expected_dx)
