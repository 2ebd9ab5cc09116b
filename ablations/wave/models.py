"""
The models: a sequence (T, B, inputs) in, the answers at its last steps out.

A new model is one class here and its line in MODELS. It takes (settings, inputs), has `width`, the numbers that it
hands to the head at each step, `initialize(batch, device)`, its state before the first step, and `forward(x, state)`
-> (features (T, B, width), state), so that a sequence can be read in pieces.

Shapes: T steps, B sequences, d width of the residual stream, n numbers in a state.
"""
import math
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F

from ablations.wave.recurrence import Unitary, Wave, scan
from attention import attend
from model import MLP, EncoderLayer, ModelConfig, initialise, position_table


class WaveRNN(Wave):
    """The wave RNN. Settings: channels, hidden (units of the ring)."""

    def __init__(self, settings, inputs):
        super().__init__(inputs, settings.channels, settings.hidden)


class IdentityRNN(nn.Module):
    """
    h_t = relu(W h_{t-1} + V x_t + b); W starts as the identity (Le et al. 2015, arXiv 1504.00941). Setting: hidden.
    """

    def __init__(self, settings, inputs):
        super().__init__()
        self.width = settings.hidden
        self.inputs = nn.Linear(inputs, self.width)
        self.recurrent = nn.Linear(self.width, self.width, bias=False)
        nn.init.normal_(self.inputs.weight, std=0.001)
        nn.init.zeros_(self.inputs.bias)
        nn.init.eye_(self.recurrent.weight)

    def initialize(self, batch, device):
        return torch.zeros(batch, self.width, device=device, dtype=self.inputs.weight.dtype)

    def forward(self, x, state):
        states = []
        for new in self.inputs(x):  # (B, n)
            state = torch.addmm(new, state, self.recurrent.weight.t()).relu()
            states.append(state)
        return torch.stack(states), state


class LSTM(nn.Module):
    """torch's LSTM; the forget gates start open, with a bias of 1 (Gers et al. 2000). Setting: hidden."""

    def __init__(self, settings, inputs):
        super().__init__()
        self.width = settings.hidden
        self.lstm = nn.LSTM(inputs, self.width)
        with torch.no_grad():
            self.lstm.bias_ih_l0[self.width:2 * self.width] = 1
            self.lstm.bias_hh_l0.zero_()

    def initialize(self, batch, device):
        zeros = torch.zeros(1, batch, self.width, device=device, dtype=self.lstm.bias_ih_l0.dtype)
        return zeros, zeros

    def forward(self, x, state):
        return self.lstm(x, state)


class Transformer(nn.Module):
    """Layers of model.py with causal attention. Its state is all it has read. Settings: width, layers, heads."""

    def __init__(self, settings, inputs):
        super().__init__()
        self.width, self.heads = settings.width, settings.heads
        config = ModelConfig(1, 1, 1, 1, d_model=self.width, heads=self.heads, encoder_layers=settings.layers,
                             decoder_layers=1, d_ff=4 * self.width, dropout=0.0, norm="pre")
        self.inputs = nn.Linear(inputs, self.width)
        self.layers = nn.ModuleList(EncoderLayer(config, layer) for layer in range(settings.layers))
        self.norm = nn.LayerNorm(self.width)
        self.apply(initialise)

    def initialize(self, batch, device):
        weight = self.inputs.weight
        return torch.zeros(0, batch, weight.shape[1], device=device, dtype=weight.dtype)

    def forward(self, x, state):
        read = torch.cat((state, x))  # (past + T, B, inputs)
        h = self.inputs(read).transpose(0, 1)  # (B, past + T, d)
        rope = position_table("rotary", len(read), self.width // self.heads, h.device, h.dtype)
        for layer in self.layers:
            h = layer(h, rope, partial(attend, causal=True))
        return self.norm(h).transpose(0, 1)[len(state):], read


class Stack(nn.Module):
    """Residual layers, each an MLP and a recurrence, both after a norm."""

    def __init__(self, settings, inputs):
        super().__init__()
        self.width = d = settings.width
        self.inputs = nn.Linear(inputs, d)
        self.mlps = nn.ModuleList(MLP([d, 4 * d, d], "gelu") for _ in range(settings.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(2 * settings.layers))
        self.apply(initialise)
        self.recurrences = nn.ModuleList(self.recurrence(settings) for _ in range(settings.layers))

    def initialize(self, batch, device):
        return [recurrence.initialize(batch, device) for recurrence in self.recurrences]

    def forward(self, x, state):
        x, last = self.inputs(x), []
        for layer, (mlp, recurrence) in enumerate(zip(self.mlps, self.recurrences)):
            x = x + mlp(self.norms[2 * layer](x))
            y, after = recurrence(self.norms[2 * layer + 1](x), state[layer])
            x = x + y
            last.append(after)
        return x, last


class UnitarySSM(Stack):
    """The linear wave: layers of `Unitary`, whose states a matrix reads. Settings: width, layers, channels, modes,
    slowest."""

    class Layer(nn.Module):
        def __init__(self, settings):
            super().__init__()
            self.cell = Unitary(settings.width, settings.channels, settings.modes, settings.slowest)
            self.out = nn.Linear(self.cell.width, settings.width, bias=False)
            slower = settings.slowest ** torch.linspace(0, 1, settings.channels)  # (c,)
            self.register_buffer("slower", slower.repeat_interleave(2 * settings.modes), persistent=False)
            self.initialize = self.cell.initialize
            initialise(self.out)

        def forward(self, x, state):
            h, last = self.cell(x, state)
            return self.out(h / self.slower), last  # a slower ring sums over more steps

    recurrence = Layer


class Mamba(Stack):
    """
    Selective SSM (Gu & Dao 2023, arXiv 2312.00752, algorithm 2 and figure 3), in plain torch with the scan of
    recurrence.py: h_t = exp(D_t A) h_{t-1} + D_t B_t x_t, y_t = C_t h_t, where the step size D_t, B_t and C_t depend on
    x_t; a short convolution before it and a gate after it. Settings: width, layers, states.
    """

    class Layer(nn.Module):
        def __init__(self, settings):
            super().__init__()
            d, self.inner, self.states = settings.width, 2 * settings.width, settings.states
            self.inputs = nn.Linear(d, 2 * self.inner, bias=False)
            self.convolution = nn.Conv1d(self.inner, self.inner, 4, groups=self.inner)
            self.rank = max(1, d // 16)
            self.selection = nn.Linear(self.inner, self.rank + 2 * self.states, bias=False)
            self.step = nn.Linear(self.rank, self.inner)
            self.log_decay = nn.Parameter(torch.arange(1.0, self.states + 1).log().repeat(self.inner, 1))  # log(-A)
            self.skip = nn.Parameter(torch.ones(self.inner))
            self.out = nn.Linear(self.inner, d, bias=False)
            with torch.no_grad():  # step sizes of 0.001 to 0.1, softplus(bias), as in the authors' program
                sizes = torch.empty(self.inner).uniform_(math.log(0.001), math.log(0.1)).exp()
                self.step.bias.copy_(sizes + torch.log(-torch.expm1(-sizes)))

        def initialize(self, batch, device):
            """The last three inputs of the convolution (B, inner, 3), and h (B, inner, n)."""
            weight = self.skip
            return weight.new_zeros(batch, self.inner, 3), weight.new_zeros(batch, self.inner, self.states)

        def forward(self, x, state):
            past, h = state
            x, gate = self.inputs(x).chunk(2, dim=-1)  # (T, B, inner) each
            read = torch.cat((past, x.permute(1, 2, 0)), dim=2)  # (B, inner, 3 + T)
            x = F.silu(self.convolution(read)).permute(2, 0, 1)  # (T, B, inner)
            step, b, c = self.selection(x).split((self.rank, self.states, self.states), dim=-1)
            step = F.softplus(self.step(step))[..., None]  # (T, B, inner, 1)
            decay = (-self.log_decay.exp() * step).exp()  # (T, B, inner, n)
            new = step * x[..., None] * b[..., None, :]  # (T, B, inner, n)
            new = torch.cat((new[:1] + decay[:1] * h, new[1:]))
            states = scan(decay, new)
            y = (states @ c[..., None])[..., 0] + self.skip * x
            return self.out(y * F.silu(gate)), (read[..., -3:], states[-1])

    recurrence = Layer


MODELS = {"wave": WaveRNN, "identity": IdentityRNN, "lstm": LSTM, "transformer": Transformer, "ssm": UnitarySSM,
          "mamba": Mamba}


class Network(nn.Module):
    """A model and the matrix that reads the answers from its features."""

    def __init__(self, settings, inputs, outputs):
        super().__init__()
        self.core = MODELS[settings.model](settings, inputs)
        self.head = nn.Linear(self.core.width, outputs)
        initialise(self.head)

    def forward(self, x, answers):
        """x: (T, B, inputs) -> answers at the last steps (answers, B, outputs)"""
        features, _ = self.core(x, self.core.initialize(x.shape[1], x.device))
        return self.head(features[-answers:])
