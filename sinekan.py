"""
SineKAN layers (Reinhardt, Ramakrishnan & Gleyzer, arXiv 2407.04149). Every edge from input i to output o has its own
function, a sum of sines:

    y_o = sum_ik A[o, k, i] sin(f_k x_i + p_ki) + b_o

The K frequencies f_k are learned and shared by all edges, the amplitudes A are learned, the phases p are fixed. Given
the table of all sines, the sum is one matrix product. The table is K times as large as x, so the backward pass
recomputes it; both passes compute it in slices of tokens that fit into a CPU's cache. A layer saves x alone, whatever K
is.

Shapes: N tokens, I inputs, O outputs, K grid size.
"""
import math

import torch
import torch.nn as nn
from torch.autograd.function import once_differentiable

SLICE = {"cpu": 2 ** 18, "cuda": 2 ** 26}  # largest slice of the table of sines, in entries


def angles(x, frequency, phase):
    """
    f_k x_i + p_ki, in fp32 or better, as bf16 is too coarse for high frequencies.

    x (N, I), frequency (K,), phase (K, I) -> (N, K, I)
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.addcmul(phase.to(dtype), x[:, None].to(dtype), frequency[:, None].to(dtype))


def slices(x, grid):
    """
    Slices of the tokens x (N, I). Under torch.compile one slice: its sizes are symbols, and it fuses the sines itself.
    """
    if torch.compiler.is_compiling():
        return [slice(None)]
    rows = max(1, SLICE.get(x.device.type, 2 ** 26) // (grid * x.shape[1]))
    return [slice(start, start + rows) for start in range(0, max(1, len(x)), rows)]


class Sines(torch.autograd.Function):
    """x (N, I), frequency (K,), phase (K, I), amplitude (O, K I), bias (O,) -> y (N, O), with products in `dtype`."""

    @staticmethod
    def forward(ctx, x, frequency, phase, amplitude, bias, dtype):
        ctx.save_for_backward(x, frequency, phase, amplitude)
        ctx.dtype = dtype
        weight, bias = amplitude.to(dtype).t(), bias.to(dtype)
        y = [torch.addmm(bias, angles(x[part], frequency, phase).sin_().flatten(1).to(dtype), weight)
             for part in slices(x, len(frequency))]
        return torch.cat(y)  # (N, O)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, frequency, phase, amplitude = ctx.saved_tensors
        weight = amplitude.to(ctx.dtype)
        dx, df, da = torch.empty_like(x), torch.zeros_like(frequency), torch.zeros_like(amplitude)
        for part in slices(x, len(frequency)):
            angle = angles(x[part], frequency, phase)  # (n, K, I)
            da += dy[part].t() @ angle.sin().flatten(1).to(ctx.dtype)
            inner = angle.cos_().mul_((dy[part] @ weight).view_as(angle))  # (n, K, I), gradient of the angles
            dx[part] = frequency.to(inner.dtype) @ inner
            df += inner.mul_(x[part, None]).sum((0, 2))
        return dx, df, None, da, dy.sum(0, dtype=amplitude.dtype), None


class SineKAN(nn.Module):
    """
    Frequencies and phases start as in the authors' program (github.com/ereinha/SineKAN): f_k = k / (K + 1) and
    p_ki = (k / (K + 1) + pi i / (I - 1)) prod_g R(g), where R(g) = 0.9724 g^-0.9884 + 0.9994 for g = 1..K-1 is fitted
    so that sums over grids of different sizes are alike. Amplitudes fall off as 1 / k, as there. They are scaled for
    outputs of unit variance, as all matrices of model.py are.
    """

    def __init__(self, inputs, outputs, grid):
        super().__init__()
        self.grid = grid
        k = torch.arange(1, grid + 1)
        self.frequency = nn.Parameter(k / (grid + 1))
        self.mix = nn.Linear(grid * inputs, outputs)  # amplitudes A, (O, K I), and bias
        growth = math.prod(0.9724108095811765 * g ** -0.9884401790754128 + 0.999449553483052 for g in range(1, grid))
        phase = (k[:, None] / (grid + 1) + torch.linspace(0, math.pi, inputs)) * growth  # (K, I)
        self.register_buffer("phase", phase, persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """
        Amplitudes from N(0, s_k^2) with s_k^2 = 2 / I * k^-2 / sum_k k^-2: the outputs have unit variance, as the mean
        square of a sine is 1/2.
        """
        falling = 1 / torch.arange(1, self.grid + 1)
        std = falling * math.sqrt(2 / self.phase.shape[1]) / falling.norm()
        nn.init.normal_(self.mix.weight).unflatten(1, (self.grid, -1)).mul_(std[:, None])
        nn.init.zeros_(self.mix.bias)

    def _apply(self, function, recurse=True):
        """.to(torch.bfloat16) and the like leave frequencies and phases as they are: angles grow to 100 and more."""
        frequency, phase = self.frequency.data, self.phase
        super()._apply(function, recurse)
        if self.phase.dtype in (torch.bfloat16, torch.float16):
            self.frequency.data, self.phase = frequency.to(self.phase.device), phase.to(self.phase.device)
        return self

    def forward(self, x):
        """x: (..., I) -> (..., O)"""
        rows = x.reshape(-1, x.shape[-1])
        has_gradients = isinstance(self.mix, nn.Linear)  # the layers that generate.for_decoding puts there have none
        if torch.is_grad_enabled() and has_gradients:
            device, dtype = x.device.type, self.mix.weight.dtype
            if torch.is_autocast_enabled(device):
                dtype = torch.get_autocast_dtype(device)
            y = Sines.apply(rows, self.frequency, self.phase, self.mix.weight, self.mix.bias, dtype)
        else:
            y = torch.cat([self.mix(angles(rows[part], self.frequency, self.phase).sin_().flatten(1).to(x.dtype))
                           for part in slices(rows, self.grid)])
        return y.view(*x.shape[:-1], y.shape[-1])


def reference(layer, x):
    """The formula with the whole table of sines in memory; tests compare SineKAN with it. x: (..., I) -> (..., O)"""
    table = torch.sin(torch.einsum("...i,k->...ki", x, layer.frequency) + layer.phase)
    return torch.einsum("...ki,oki->...o", table, layer.mix.weight.unflatten(1, layer.phase.shape)) + layer.mix.bias
