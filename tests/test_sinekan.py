"""SineKAN: the fast layer against its formula, in value and in every gradient, and what it keeps in memory."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sinekan
from sinekan import SineKAN, reference


def layer_of(inputs, outputs, grid, seed=0):
    """In double precision, with numbers that are not those of the start."""
    torch.manual_seed(seed)
    layer = SineKAN(inputs, outputs, grid).double()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight)
    return layer


def test_the_reference_is_the_formula():
    layer, x = layer_of(3, 2, 4), torch.randn(5, 3, dtype=torch.double)
    amplitude = layer.mix.weight.view(2, 4, 3)  # A[o, k, i]
    for n in range(5):
        for o in range(2):
            y = layer.mix.bias[o].item()
            for i in range(3):
                for k in range(4):
                    angle = layer.frequency[k].item() * x[n, i].item() + layer.phase[k, i].item()
                    y += amplitude[o, k, i].item() * math.sin(angle)
            assert abs(reference(layer, x)[n, o].item() - y) < 1e-12


@given(tokens=st.integers(0, 7), inputs=st.integers(1, 5), outputs=st.integers(1, 4), grid=st.integers(1, 5),
       entries=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_the_layer_is_its_reference_in_value_and_gradients(tokens, inputs, outputs, grid, entries, seed):
    """`entries` of the table of sines at a time: the tokens come in one slice or in several."""
    layer = layer_of(inputs, outputs, grid, seed)
    x = torch.randn(2, tokens, inputs, dtype=torch.double, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sinekan.SLICE, "cpu", entries)
        fast, slow = layer(x), reference(layer, x)
        assert fast.shape == slow.shape and torch.allclose(fast, slow, rtol=0, atol=1e-12)
        weights, direction = [x, *layer.parameters()], torch.randn_like(slow)
        gradients = (torch.autograd.grad(y, weights, direction) for y in (fast, slow))
        for ours, theirs in zip(*gradients):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)
        with torch.inference_mode():
            assert torch.allclose(layer(x), slow, rtol=0, atol=1e-12)


def test_gradients_are_difference_quotients():
    layer, x = layer_of(3, 2, 4), torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, f, a, b: sinekan.Sines.apply(x, f, layer.phase, a, b, torch.double),
                                    (x, layer.frequency, layer.mix.weight, layer.mix.bias))


@pytest.mark.parametrize("grid", [1, 5, 8])
def test_phases_and_frequencies_are_those_of_the_authors(grid):
    layer = SineKAN(6, 2, grid)
    for k in range(grid):
        assert abs(layer.frequency[k] - (k + 1) / (grid + 1)) < 1e-6
        for i in range(6):
            phase = (k + 1) / (grid + 1) + math.pi * i / 5
            for g in range(1, grid):
                phase *= 0.9724108095811765 * g ** -0.9884401790754128 + 0.999449553483052
            assert abs(layer.phase[k, i] - phase) < 1e-4


@pytest.mark.parametrize("grid", [1, 2, 8, 32])
def test_outputs_have_unit_variance_whatever_the_grid(grid):
    torch.manual_seed(0)
    assert 0.75 < SineKAN(256, 256, grid)(torch.randn(500, 256)).square().mean() < 1.25


def test_a_larger_grid_keeps_no_more_for_the_backward_pass():
    kept = {}
    for grid in (2, 16):
        layer, x, sizes = SineKAN(8, 8, grid), torch.randn(1000, 8), []
        own = {tensor.data_ptr() for tensor in [*layer.parameters(), layer.phase]}

        def note(tensor):
            sizes.append(tensor.nbytes if tensor.data_ptr() not in own else 0)
            return tensor
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            layer(x)
        kept[grid] = sum(sizes)
    assert kept[2] == kept[16] == 1000 * 8 * 4  # x itself


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_mixed_precision_the_products_are_half_and_the_angles_are_not(dtype):
    torch.manual_seed(0)
    layer, x = SineKAN(64, 32, 8), 30 * torch.rand(50, 64)  # angles of up to 30 are blurred by 0.1 in bf16
    with torch.autocast("cpu", dtype):
        y = layer(x)
    y.float().square().mean().backward()
    assert y.dtype == dtype and (y - reference(layer, x)).abs().max() < 0.03
    gradients = [weight.grad for weight in layer.parameters()]
    layer.zero_grad()
    reference(layer, x).square().mean().backward()
    for ours, weight in zip(gradients, layer.parameters()):
        assert ours.dtype == torch.float32 and (ours - weight.grad).norm() < 0.02 * weight.grad.norm()


def test_torch_compile_makes_one_graph_of_it():
    layer, x = layer_of(4, 3, 5), torch.randn(6, 4, dtype=torch.double, requires_grad=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), layer(x))
    ours, theirs = (torch.autograd.grad(f(x).sin().sum(), [x, *layer.parameters()]) for f in (compiled, layer))
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs))
