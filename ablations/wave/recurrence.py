"""
Recurrences with memory: the linear recurrence as a parallel scan, the travelling wave, the unitary linear recurrence.

A travelling wave (Keller et al. 2023, arXiv 2309.08045) is a ring of units. Each input enters at unit 0, and each step
moves all contents on by one unit, so that the place of a number on the ring tells how long ago it came. A ring without
nonlinearity is a shift matrix. Its eigenvalues lie on the unit circle, and in its eigenvectors, the Fourier modes of
the ring, each step multiplies mode k by exp(i w_k). `Unitary` is this form: linear, so a scan computes all steps at
once.

Both cells take inputs (T, B, d), T steps of B sequences. `RecurrentMixer` puts one of them in the place of
self-attention in the encoder of model.py, from both ends of each packed row. This file imports no other model part,
as model.py imports it.

Shapes: T steps, B sequences, N packed tokens, d inputs, c channels, n units or modes of a channel.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from attention import pad_rows

ENCODER_MODES = 7  # in each channel of `Unitary` in the encoder: a ring of 14 units, as the wave has there
SLOWEST = 32.0  # in the encoder the slowest ring of `Unitary` is so many times slower than the fastest


# ---------------------------------------------------------------------------------------------------------------------
# The linear recurrence h_t = a_t h_{t-1} + b_t with h_{-1} = 0

def loop(a, b):
    """All h_t, one after the other: the recurrent form, with which tests compare `scan`. a, b: (T, ...) -> (T, ...)"""
    states = [b[0]]
    for a_t, b_t in zip(a[1:], b[1:]):
        states.append(a_t * states[-1] + b_t)
    return torch.stack(states)


# One operator to autograd, which keeps a and h alone, and to torch.compile, which need not look into the recursion
@torch.library.custom_op("symba::scan", mutates_args=())
def scan(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """
    All h_t at once, by about 2 log2(T) tensor operations and 3 T multiplications. a, b: (T, ...) -> (T, ...)

    a_t = 0 starts a new sequence: nothing of the steps before t enters h_t. Blelloch 1990, "Prefix sums and their
    applications"; for recurrences Martin & Cundy 2018, arXiv 1709.04057.
    """
    return solve(a, b)


def solve(a, b):
    steps = len(b)
    if steps == 1:
        return b.clone()
    first, second = slice(0, steps - 1, 2), slice(1, steps, 2)  # the two steps of each pair
    # a pair is one step: h_{2k+1} = (a_{2k+1} a_{2k}) h_{2k-1} + (a_{2k+1} b_{2k} + b_{2k+1})
    of_pairs = solve(a[second] * a[first], torch.addcmul(b[second], a[second], b[first]))  # h_1, h_3, ...
    h = torch.empty_like(b)
    h[0], h[second] = b[0], of_pairs
    h[2::2] = torch.addcmul(b[2::2], a[2::2], of_pairs[:(steps - 1) // 2])
    return h


@scan.register_fake
def _(a, b):
    return torch.empty_like(b)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], output)


def _backward(ctx, grad):
    """The gradient of h obeys the same recurrence backwards: G_t = grad_t + conj(a_{t+1}) G_{t+1}."""
    a, h = ctx.saved_tensors
    following = torch.cat((torch.zeros_like(a[:1]), a[1:].flip(0).conj()))  # 0, a_{T-1}, ..., a_1
    of_b = scan(following.resolve_conj(), grad.flip(0)).flip(0)
    of_a = torch.zeros_like(a)
    torch.mul(of_b[1:], h[:-1].conj(), out=of_a[1:])
    return of_a, of_b


scan.register_autograd(_backward, setup_context=_keep)


# ---------------------------------------------------------------------------------------------------------------------
# The two cells

class Wave(nn.Module):
    """
    h_t = relu(U * h_{t-1} + V x_t + b): U * is a circular convolution over the ring with a kernel of 3 units, which
    mixes the channels. U starts as the shift by one unit. V x + b enters at unit 0 of each channel.

    As the parameter is U minus the shift, weight decay pulls towards the pure wave.
    """

    def __init__(self, inputs, channels, units):
        super().__init__()
        self.channels, self.units, self.width = channels, units, channels * units
        self.inputs = nn.Linear(inputs, channels)  # V and b
        self.change = nn.Parameter(torch.zeros(channels, 3 * channels))  # of the taps at units i - 1, i, i + 1
        self.register_buffer("shift", torch.eye(channels, 3 * channels), persistent=False)
        self.draw_weights()

    @torch.no_grad()
    def draw_weights(self):
        """V has positive entries: relu would stop the others where inputs are positive, as in the tasks."""
        nn.init.uniform_(self.inputs.weight, 0, 2)
        nn.init.zeros_(self.inputs.bias)

    def initialize(self, batch, device):
        """The state before the first step, zeros: (c, n B), unit after unit."""
        return torch.zeros(self.channels, self.units * batch, device=device, dtype=self.change.dtype)

    def forward(self, x, state=None):
        """x: (T, B, d) -> the states after each step (T, B, c n), and the last of them (c, n B)."""
        entering = self.inputs(x).to(self.change.dtype).transpose(1, 2)  # (T, c, B)
        state = self.initialize(x.shape[1], x.device) if state is None else state
        states = wave(entering, self.shift + self.change, state)  # (T, c, n B)
        return states.unflatten(2, (self.units, -1)).permute(0, 3, 1, 2).flatten(2), states[-1]

    def on_rows(self, x, rows, backwards):
        """Packed tokens (N, d) -> states (N, c n), from the first token of each row on, or from its last."""
        if backwards:  # the place of a token counted from the end of its row
            rows = rows._replace(position=rows.start.diff()[rows.row] - 1 - rows.position)
        states, _ = self(pad_rows(x, rows).transpose(0, 1))  # (T, B, c n)
        return states[rows.position, rows.row]


def neighbours(h, batch):
    """Units i - 1, i and i + 1 of each place on the ring. h: (c, n B) -> (3 c, n B)"""
    return torch.cat((h.roll(batch, 1), h, h.roll(-batch, 1)))


# One operator, as its backward pass by autograd would take twice the time and keep four times the memory
@torch.library.custom_op("symba::wave", mutates_args=())
def wave(entering: torch.Tensor, kernel: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """entering: (T, c, B); kernel: (c, 3 c); state: (c, n B), before the first step -> states (T, c, n B)"""
    batch = entering.shape[2]
    states = entering.new_empty(len(entering), *state.shape)
    for new, h in zip(entering, states):
        torch.mm(kernel, neighbours(state, batch), out=h)
        h[:, :batch] += new
        state = h.relu_()
    return states


@wave.register_fake
def _(entering, kernel, state):
    return entering.new_empty(len(entering), *state.shape)


@torch.library.custom_op("symba::wave_backward", mutates_args=())
def wave_backward(grad: torch.Tensor, kernel: torch.Tensor, state: torch.Tensor, states: torch.Tensor,
                  batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of entering, kernel and state for `grad`, that of the states."""
    of_entering, of_kernel = grad.new_empty(len(grad), len(kernel), batch), torch.zeros_like(kernel)
    of_h = torch.zeros_like(state)  # from the steps after this one
    for step in reversed(range(len(grad))):
        inner = (of_h + grad[step]) * (states[step] > 0)
        of_entering[step] = inner[:, :batch]
        of_kernel.addmm_(inner, neighbours(states[step - 1] if step else state, batch).t())
        before, here, after = (kernel.t() @ inner).chunk(3)
        of_h = here + before.roll(-batch, 1) + after.roll(batch, 1)
    return of_entering, of_kernel, of_h


@wave_backward.register_fake
def _(grad, kernel, state, states, batch):
    return grad.new_empty(len(grad), len(kernel), batch), torch.empty_like(kernel), torch.empty_like(state)


def _keep_wave(ctx, inputs, output):
    entering, kernel, state = inputs
    ctx.batch = entering.shape[2]
    ctx.save_for_backward(kernel, state, output)


def _backward_wave(ctx, grad):
    return wave_backward(grad.contiguous(), *ctx.saved_tensors, ctx.batch)


wave.register_autograd(_backward_wave, setup_context=_keep_wave)


class Unitary(nn.Module):
    """
    h_t = exp(i w s_t) h_{t-1} + B x_t, complex and linear, with |exp(i w s_t)| = 1. Each of the c channels has n modes
    of frequencies w; its input enters all modes alike, as unit 0 of a ring is the sum of all modes.

    s_t = 2 sigmoid(S x_t), one for each channel, is the speed of the wave: 1 at the start of training; an input that
    makes it 0 holds the state still. The frequencies start as pi (k + 1/2) / n: those of a ring of 2 n units whose
    contents change sign on their way round, so that delays of 0 to 2 n - 1 steps are told apart. slowest > 1: the rings
    of the channels are slower, up to so many times, in geometric progression. They blur delays and reach further.
    """

    def __init__(self, inputs, channels, modes, slowest=1.0):
        super().__init__()
        self.channels, self.modes, self.width = channels, modes, 2 * channels * modes
        self.inputs = nn.Linear(inputs, channels, bias=False)  # B
        self.speed = nn.Parameter(torch.zeros(channels, inputs))  # S
        ring = math.pi * (torch.arange(modes) + 0.5) / modes  # (n,)
        slower = slowest ** -torch.linspace(0, 1, channels)  # (c,)
        self.frequency = nn.Parameter((slower[:, None] * ring).flatten())  # a vector: weight decay leaves it alone

    def initialize(self, batch, device):
        """The state before the first step, zeros: (B, c, n), complex."""
        dtype = torch.complex128 if self.frequency.dtype == torch.float64 else torch.complex64
        return torch.zeros(batch, self.channels, self.modes, device=device, dtype=dtype)

    def coefficients(self, x):
        """a and b of h_t = a_t h_{t-1} + b_t, (..., c, n) complex. x: (..., d)"""
        dtype = self.frequency.dtype
        speed = 2 * F.linear(x, self.speed).to(dtype).sigmoid()[..., None]  # (..., c, 1)
        angle = speed * self.frequency.unflatten(0, (self.channels, self.modes))  # (..., c, n)
        a = torch.polar(torch.ones_like(angle), angle)
        return a, self.inputs(x).to(dtype)[..., None].expand_as(angle).to(a.dtype)

    def forward(self, x, state=None, recurrence=scan):
        """
        x: (T, B, d) -> the states after each step, real and imaginary parts (T, B, 2 c n), and the last of them
        (B, c, n), complex. recurrence: `scan`, or `loop`, which computes the same.
        """
        a, b = self.coefficients(x)  # (T, B, c, n)
        if state is not None:
            b = torch.cat((b[:1] + a[:1] * state, b[1:]))
        h = recurrence(a, b)
        return torch.view_as_real(h).flatten(2), h[-1]

    def on_rows(self, x, rows, backwards):
        """Packed tokens (N, d) -> states (N, 2 c n), from the first token of each row on, or from its last."""
        starts = rows.position == 0
        if backwards:
            x, starts = x.flip(0), (rows.position == rows.start.diff()[rows.row] - 1).flip(0)
        a, b = self.coefficients(x)  # (N, c, n)
        h = torch.view_as_real(scan(a.masked_fill(starts[:, None, None], 0), b)).flatten(1)
        return h.flip(0) if backwards else h


# ---------------------------------------------------------------------------------------------------------------------
# In the encoder of model.py

class RecurrentMixer(nn.Module):
    """
    In place of self-attention: two cells, from the first and from the last token of each row on, and a matrix that
    reads both states, scaled to unit mean square. model.py draws all its matrices anew, so V of a wave has both signs
    here. It has as many weights as the four matrices of self-attention, 4 d^2
    ("ssm") or 4% fewer ("wave").
    """

    def __init__(self, kind, width):
        super().__init__()
        if kind == "wave":
            cells = [Wave(width, width // (ENCODER_MODES + 1), 2 * ENCODER_MODES) for _ in range(2)]
        else:
            cells = [Unitary(width, width // (ENCODER_MODES + 1), ENCODER_MODES, SLOWEST) for _ in range(2)]
        self.cells = nn.ModuleList(cells)
        self.out = nn.Linear(2 * cells[0].width, width, bias=False)

    def forward(self, x, rope, rows):
        """Packed tokens (N, d) -> (N, d). rope: not used, the order is in the recurrence. rows: the Packing."""
        h = torch.cat([cell.on_rows(x, rows, backwards) for backwards, cell in enumerate(self.cells)], dim=-1)
        return self.out(F.rms_norm(h, h.shape[-1:]).to(x.dtype))
