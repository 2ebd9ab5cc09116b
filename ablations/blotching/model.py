"""
Causal language models of chains: a transformer of the project's layers, or an LSTM; and decoding.

Both have the same two methods. `forward` gives the logits of packed rows, for training. `step` gives those of one more
token of each row, for decoding; its state is the KV cache, or the hidden state of the LSTM.

Shapes: B rows, N tokens of packed rows, T tokens of the longest row, V vocabulary, d width, H heads of width h.
"""
import math
from types import SimpleNamespace

import torch
import torch.nn as nn
import torch.nn.functional as F

from ablations.blotching.data import EOS, PAD, decode, encode, vocabulary
from attention import pack_rows, pad_rows, with_padding
from batches import to_device
from model import EncoderLayer, ModelConfig, initialise, rotary_table, sinusoidal_table
from runtime import checkpoint
from runtime.files import InputError

MODEL = ("model_type", "d_model", "n_layers", "heads", "h_mult", "dropout", "norm", "posenc_type", "max_posencs",
         "learnable_posencs", "posenc_drop_p", "pad_pos_skip", "seq_len")
AT_ONCE = 8  # rows of a call of the attention kernel on a CPU
COMPACT_AT = 0.75  # drop rows that have ended from the batch when at most 75% are left


class CausalTransformer(nn.Module):
    def __init__(self, settings, vocab):
        super().__init__()
        config = ModelConfig(
            src_vocab=vocab, tgt_vocab=vocab, src_max_len=settings.seq_len, tgt_max_len=settings.seq_len,
            d_model=settings.d_model, heads=settings.heads, encoder_layers=settings.n_layers, decoder_layers=1,
            d_ff=settings.h_mult * settings.d_model, dropout=settings.dropout, norm=settings.norm)
        self.embedding = nn.Embedding(vocab, config.d_model)
        # an encoder layer is a causal layer when its self-attention is causal
        self.layers = nn.ModuleList(EncoderLayer(config, layer) for layer in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()
        self.head = nn.Linear(config.d_model, vocab)
        self.dropout, self.position_dropout = nn.Dropout(config.dropout), nn.Dropout(settings.posenc_drop_p)
        self.apply(lambda module: initialise(module, small=False))
        self.rotary, places = settings.posenc_type == "rotary", torch.arange(settings.max_posencs)
        if self.rotary:
            table = rotary_table(places, config.d_model // config.heads).float()
        elif settings.posenc_type == "sinusoidal":
            table = sinusoidal_table(places, config.d_model).float()
        else:
            table = torch.randn(settings.max_posencs, config.d_model) / math.sqrt(2)  # as large as a sinusoidal one
        self.positions = nn.Parameter(table, requires_grad=settings.learnable_posencs)  # (max_posencs, ...)

    def embed(self, tokens, positions):
        """Tokens and their positions, (N,) each -> hidden states (N, d), and their RoPE table or None."""
        x, encoding = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim), self.positions[positions]
        if self.rotary:
            return self.dropout(x), encoding
        return self.dropout(x + self.position_dropout(encoding)), None

    def forward(self, tokens, positions, rows):
        """Logits of the token after each. tokens, positions: (N,) of packed rows -> (N, V)"""
        x, rope = self.embed(tokens, positions)
        groups = group_rows(rows)

        def attend(q, k, v):
            return torch.cat([with_padding(q[span], k[span], v[span], group, group, causal=True)
                              for span, group in groups])
        for layer in self.layers:
            x = layer(x, rope, attend)
        return self.head(self.norm(x))

    def start(self, rows, longest):
        """The empty KV cache of so many rows: keys and values (T, B, H, h) of each layer."""
        d, heads = self.embedding.embedding_dim, self.layers[0].attention.heads
        return [self.head.weight.new_empty(longest, rows, heads, d // heads) for _ in range(2 * len(self.layers))]

    def step(self, tokens, positions, time, state):
        """Logits after the token number `time` of each row. tokens, positions: (B,) -> (B, V), the new state"""
        x, rope = self.embed(tokens, positions)
        for number, layer in enumerate(self.layers):
            keys, values = state[2 * number:2 * number + 2]

            def attend(q, k, v):  # (B, H, h) each
                keys[time], values[time] = k, v
                past = [x[:time + 1].permute(1, 2, 0, 3) for x in (keys, values)]  # (B, H, time + 1, h)
                return F.scaled_dot_product_attention(q.unsqueeze(2), *past).squeeze(2)
            x = layer(x, rope, attend)
        return self.head(self.norm(x)), state


def group_rows(rows):
    """
    Rows that attend in one call of the kernel: [(slice of their tokens, their Packing)].

    On a CPU these are AT_ONCE neighbours, which make_batch has sorted by length, padded to the longest of them: less
    padding than one call for all rows needs, and fewer calls than one for each row. On a GPU one call is best.
    """
    if rows.start.is_cuda:
        return [(slice(None), rows)]
    groups, begin = [], 0
    for lengths in rows.start.diff().long().split(AT_ONCE):
        end = begin + int(lengths.sum())
        groups.append((slice(begin, end), pack_rows(lengths)))
        begin = end
    return groups


class LSTM(nn.Module):
    """Layers of LSTM cells (Hochreiter & Schmidhuber, Neural Computation 9 (1997) 1735). It needs no positions."""

    def __init__(self, settings, vocab):
        super().__init__()
        d = settings.d_model
        self.embedding, self.head = nn.Embedding(vocab, d), nn.Linear(d, vocab)
        self.lstm = nn.LSTM(d, d, settings.n_layers, dropout=settings.dropout if settings.n_layers > 1 else 0.0)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, tokens, positions, rows):
        """As CausalTransformer.forward."""
        x = pad_rows(self.dropout(self.embedding(tokens)), rows).transpose(0, 1)  # (T, B, d)
        hidden = self.dropout(self.lstm(x)[0])
        return self.head(hidden[rows.position, rows.row])

    def start(self, rows, longest):
        """Hidden and cell state, zero: (layers, B, d) each."""
        return [self.head.weight.new_zeros(self.lstm.num_layers, rows, self.lstm.hidden_size) for _ in range(2)]

    def step(self, tokens, positions, time, state):
        """As CausalTransformer.step."""
        hidden, state = self.lstm(self.embedding(tokens)[None], tuple(state))
        return self.head(hidden[0]), list(state)


def build_model(settings, n_btokens):
    vocab = len(vocabulary(n_btokens))
    if settings.model_type not in ("transformer", "lstm"):
        raise InputError(f"model_type: got {settings.model_type!r}, wanted transformer, lstm")
    if settings.posenc_type not in ("rotary", "sinusoidal", "random"):
        raise InputError(f"posenc_type: got {settings.posenc_type!r}, wanted rotary, sinusoidal, random")
    if settings.posenc_type == "rotary" and (settings.learnable_posencs or settings.posenc_drop_p):
        raise InputError("learnable_posencs, posenc_drop_p: rotary positions have neither weights nor dropout")
    for name in ("dropout", "posenc_drop_p"):
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"{name}: got {getattr(settings, name)}, wanted at least 0 and less than 1")
    least = settings.seq_len * (2 if settings.posenc_type == "random" else 1)  # random ones need gaps between them
    if settings.max_posencs < least:
        raise InputError(f"max_posencs: got {settings.max_posencs}, wanted at least {least}, with seq_len "
                         f"{settings.seq_len} and {settings.posenc_type} positions")
    return (CausalTransformer if settings.model_type == "transformer" else LSTM)(settings, vocab)


def load_model(path, device="cpu"):
    """(model in eval mode, the settings that it was trained with) of a checkpoint."""
    state = checkpoint.load(path)
    if state.get("experiment") != "blotching":
        raise InputError(f"{path}: not a checkpoint of ablations/blotching")
    settings = SimpleNamespace(**state["settings"])
    model = build_model(settings, settings.n_btokens)
    model.load_state_dict(state["model"])
    return model.to(device).eval(), settings


# ---------------------------------------------------------------------------------------------------------------------
# Positions

def draw_positions(settings, rows, count, rng):
    """
    Positions of `count` consecutive tokens of each row. (rows, count)

    "rotary" and "sinusoidal": 0, 1, 2, ... "random": a random increasing sequence of 0 to max_posencs - 1 for each
    row, so that longer rows meet no position that is new (Ruoss et al. 2023, arXiv 2305.16843). rng: a numpy Generator.
    """
    if settings.posenc_type != "random":
        return torch.arange(count).expand(rows, count)
    chosen = torch.from_numpy(rng.random((rows, settings.max_posencs))).argsort(1)[:, :count]
    return chosen.sort(1).values


def batch_positions(settings, batch, rng):
    """
    Positions of the tokens of a batch. (N,)

    With pad_pos_skip the tokens that are there are counted; without it a gap stays where tokens were blotched. Random
    positions are drawn as if for rows of any length up to seq_len: a model that answers does not know the length yet.
    """
    index = batch.rows.position if settings.pad_pos_skip else batch.index
    count = int(index.max()) + 1
    if settings.posenc_type == "random":
        count = int(rng.integers(count, settings.seq_len + 1))
    return draw_positions(settings, len(batch.rows.start) - 1, count, rng)[batch.rows.row, index]


def predict(model, settings, batch, rng):
    """Logits of the token after each token of a batch. (N, V), on the device of the model"""
    device = model.head.weight.device
    positions = batch_positions(settings, batch, rng)
    return model(batch.tokens.to(device), positions.to(device), to_device(batch.rows, device))


# ---------------------------------------------------------------------------------------------------------------------
# Decoding

@torch.inference_mode()
def solve(model, settings, problems, level, temperature, rng):
    """
    The model's chains for these problems, a list of texts; each begins with its problem.

    level: of blotching, 0 to n_btokens. temperature: 0 takes the most probable token, else tokens are sampled.
    rng: a numpy Generator.
    """
    was_training = model.training
    model.eval()
    device = model.head.weight.device
    prompts = [torch.from_numpy(encode(f"{problem}=", level)[0][:-1]) for problem in problems]  # without EOS
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    tokens = torch.full((len(problems), settings.seq_len), PAD, device=device)  # (B, T)
    for row, prompt in enumerate(prompts):
        tokens[row, :len(prompt)] = prompt
    positions = draw_positions(settings, len(problems), settings.seq_len, rng).to(device)  # (B, T)
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))

    active = torch.arange(len(problems), device=device)  # (b,), rows that have not ended
    state, done = model.start(len(problems), settings.seq_len), torch.zeros_like(active, dtype=torch.bool)
    for time in range(settings.seq_len - 1):
        logits, state = model.step(tokens[active, time], positions[active, time], time, state)  # (b, V)
        if temperature == 0:
            chosen = logits.argmax(-1)
        else:
            chosen = (logits / temperature).softmax(-1).multinomial(1, generator=generator)[:, 0]
        chosen = torch.where(time + 1 < lengths[active], tokens[active, time + 1], chosen)  # the prompt is given
        tokens[active, time + 1] = chosen
        done |= chosen == EOS
        kept = (~done).nonzero()[:, 0]
        if len(kept) == 0:
            break
        if len(kept) <= COMPACT_AT * len(active):
            active, done = active[kept], done[kept]
            state = [x[:, kept] for x in state]
    model.train(was_training)
    return [decode(ids) for ids in tokens.tolist()]
