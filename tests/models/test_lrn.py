from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from alexnet.models import create_model
from alexnet.models.lrn import (
    LocalResponseNorm,
    MapResponseNorm,
    compiled,
    kernels_in_use,
    plain,
    reference,
    written_out,
)


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def path(request, monkeypatch) -> str:
    """Every test here runs with the compiled kernels and with torch's operations. (Float64 is torch's in both.)"""
    if request.param == "torch":
        monkeypatch.setattr(compiled.KERNELS, "available", lambda **_: False)
    elif kernels_in_use(torch.device("cpu"), build=True) != "compiled":
        pytest.skip(f"the kernels cannot be compiled here: {compiled.KERNELS.failure}")
    return request.param


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
    monkeypatch.setattr(plain, "PIECE_ELEMENTS", 100)  # several pieces, the last one shorter
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
    monkeypatch.setattr(plain, "PIECE_ELEMENTS", 50)
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
        monkeypatch.setattr(plain, "PIECE_ELEMENTS", elements)
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
    monkeypatch.setattr(plain, "PIECE_ELEMENTS", 200)
    x_BCHW = maps(3, 4, 6, 7, channels_last=channels_last).requires_grad_()
    mean_BCHW = torch.nn.functional.avg_pool2d(x_BCHW.square(), size, 1, size // 2, count_include_pad=True)
    expected = x_BCHW / (1 + 2.5 * mean_BCHW) ** 0.75
    ours = MapResponseNorm(size=size, alpha=2.5)(x_BCHW)
    torch.testing.assert_close(ours, expected)
    g_BCHW = maps(3, 4, 6, 7) + 1
    (ours_dx,), (expected_dx,) = (torch.autograd.grad(y, x_BCHW, g_BCHW) for y in (ours, expected))
    torch.testing.assert_close(ours_dx, expected_dx)


WINDOWS = [
    LocalResponseNorm(size=5, alpha=0.3, towers=2),
    LocalResponseNorm(size=5, alpha=0.3, towers=2, relu=True),
    LocalResponseNorm(size=9, alpha=1e-3, alpha_times="mean", k=1.0),
    LocalResponseNorm(size=3, alpha=0.3, beta=0.6, towers=2, relu=True),
    MapResponseNorm(size=5, alpha=1e-3),
    MapResponseNorm(size=3, alpha=2.5),
]


@pytest.mark.parametrize("shape", [(3, 8, 5, 4), (2, 48, 7, 9), (1, 96, 1, 1), (40, 16, 6, 6)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("norm", WINDOWS, ids=str)
def test_float32_is_close_to_float64(norm, channels_last, shape):
    x_BCHW = maps(*shape, channels_last=channels_last) * 50
    g_BCHW = maps(*shape).flip(0)
    exact = x_BCHW.clone().requires_grad_()
    y_exact = written_out(exact, norm.window)
    y_exact.backward(g_BCHW)
    ours = x_BCHW.float().requires_grad_()
    y_BCHW = norm(ours)
    y_BCHW.backward(g_BCHW.float())
    assert y_BCHW.stride() == x_BCHW.stride()
    torch.testing.assert_close(y_BCHW.double(), y_exact, rtol=3e-6, atol=1e-9)
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-5, atol=1e-5 * float(exact.grad.abs().max()))


@pytest.mark.parametrize("channels_last", [False, True])
def test_relu_within_is_relu_before(channels_last):
    x_BCHW = maps(3, 12, 5, 4, channels_last=channels_last, dtype=torch.float32) * 30
    x_BCHW[0, :, 0, 0] = 0
    results = []
    for norm in (LocalResponseNorm(towers=2, relu=True), LocalResponseNorm(towers=2)):
        x = x_BCHW.clone().requires_grad_()
        y = norm(x if norm.window.relu else x.relu())
        y.sum().backward()
        results.append((y, x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_number_that_is_not_finite_stays_one(dtype, channels_last):
    x_BCHW = maps(2, 8, 3, 3, channels_last=channels_last).to(dtype)
    x_BCHW[1, 3, 1, 1] = float("nan")
    y_BCHW = LocalResponseNorm(towers=2, relu=True)(x_BCHW)
    assert y_BCHW[1, 3, 1, 1].isnan()
    assert y_BCHW[0].isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e4, 1e12])
def test_any_size_of_activation(scale):
    x_BCHW = maps(2, 8, 3, 3, dtype=torch.float32) * scale
    norm = LocalResponseNorm(k=1e-3)
    exact = written_out(x_BCHW.double(), norm.window)
    torch.testing.assert_close(norm(x_BCHW).double(), exact, rtol=3e-6, atol=0)


def test_result_does_not_depend_on_the_number_of_threads():
    x_BCHW = maps(7, 16, 9, 5, channels_last=True, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x = x_BCHW.clone().requires_grad_()
            y = LocalResponseNorm(towers=2)(x)
            y.sum().backward()
            results.append(torch.stack([y, x.grad]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("norm", [WINDOWS[1], WINDOWS[4]], ids=str)
def test_operator_keeps_torchs_rules(norm):
    x_BCHW = maps(2, 8, 5, 4, channels_last=True, dtype=torch.float32).requires_grad_()
    operators = torch.ops.alexnet
    torch.library.opcheck(operators.response_norm.default, (x_BCHW, *norm.window))
    arguments = (x_BCHW.detach(), x_BCHW.detach(), *norm.window)
    torch.library.opcheck(operators.response_norm_backward.default, arguments)


FEW_UNITS = {"num_classes": 10, "conv_channels": (8, 8, 8, 8, 8), "fc_units": (16, 16)}


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # by torch with Python 3.13.0
@pytest.mark.parametrize("name", ["alexnet_2012", "alexnet_2012_code"])
def test_network_compiles_as_a_whole(name):
    model = create_model(name, **FEW_UNITS).to(memory_format=torch.channels_last).eval()
    x_BCHW = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    grads = []
    for network in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            network(x_BCHW).float().square().sum().backward()
        grads.append(model.conv1.weight.grad.clone())
    assert (grads[0] - grads[1]).norm() < 1e-2 * grads[0].norm()  # torch 2.11 fuses, and rounds, otherwise


def test_network_exports_in_torchs_own_operations(path):
    model = create_model("alexnet_2012", **FEW_UNITS).eval()
    x_BCHW = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(model, (x_BCHW,))
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("alexnet" in operator for operator in operators)
    torch.testing.assert_close(program.module()(x_BCHW), model(x_BCHW), rtol=1e-4, atol=1e-6)


def run_python(code: str, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "CC"} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


STEP = """
import torch
from alexnet.models.lrn import LocalResponseNorm, compiled, kernels_in_use
norm, x = LocalResponseNorm(), torch.ones(1, 8, 2, 2)
norm(x)
before = kernels_in_use(x.device)
norm(x.requires_grad_()).sum().backward()
print(before, kernels_in_use(x.device), compiled.KERNELS.failure)
"""


def test_only_a_training_step_starts_the_compiler(tmp_path, path):
    if path == "torch":
        pytest.skip("the compiler is what is tested")
    assert run_python(STEP, ALEXNET_CACHE=str(tmp_path)) == "torch compiled"
    (library,) = tmp_path.rglob("*.so")
    built = library.stat().st_mtime_ns
    assert run_python(STEP, ALEXNET_CACHE=str(tmp_path)) == "compiled compiled"
    assert library.stat().st_mtime_ns == built


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("/nowhere/cc", "no C compiler: /nowhere/cc is not installed"), ("false", "false failed: no message")],
)
def test_without_a_compiler_torchs_operations_do_it(compiler, reason, tmp_path, path):
    if path == "torch":
        pytest.skip("the compiler is what is tested")
    assert run_python(STEP, ALEXNET_CACHE=str(tmp_path), CC=compiler) == f"torch torch {reason}"
    assert list((tmp_path).rglob("*.so")) == []


TRITON = """
import torch
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm, gpu, written_out
norms = [LocalResponseNorm(alpha=0.3, towers=2, relu=True), LocalResponseNorm(size=9, alpha=0.01),
         LocalResponseNorm(size=3, beta=0.6, alpha=0.3, towers=2), MapResponseNorm(size=5, alpha=2.0)]
for memory_format in (torch.contiguous_format, torch.channels_last):
    for norm in norms:
        x = (torch.randn(3, 16, 7, 6, dtype=torch.float64) * 5).contiguous(memory_format=memory_format).requires_grad_()
        g = torch.randn_like(x)
        y = written_out(x, norm.window)
        (dx,) = torch.autograd.grad(y, x, g)
        single = x.detach().float()
        ours, ours_dx = gpu.forward(single, norm.window), gpu.backward(g.float(), single, norm.window)
        assert ours.stride() == x.stride() == ours_dx.stride()
        torch.testing.assert_close(ours.double(), y, rtol=2e-6, atol=1e-9)
        torch.testing.assert_close(ours_dx.double(), dx, rtol=1e-5, atol=1e-5 * float(dx.abs().max()))
        half = single.bfloat16()
        exact = gpu.forward(half.float(), norm.window)
        torch.testing.assert_close(gpu.forward(half, norm.window).float(), exact, rtol=2**-7, atol=0)  # it rounds down
print("equal")
"""


def test_kernels_for_cuda_in_tritons_interpreter(path):
    """Their arithmetic and their indices, on the CPU; speed and real devices are for benchmarks/gpu.py."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if path == "torch":
        pytest.skip("a path of its own")
    assert run_python(TRITON, TRITON_INTERPRET="1") == "equal"
