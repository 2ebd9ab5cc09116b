"""The model: attention, masks and positions against plain formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import padded

from attention import attend
from model import ModelConfig, Transformer, rotary_table, rotate
from runtime.files import InputError
from runtime.hardware import find_device
from tokenizer import PAD

SIZES = dict(
    src_vocab=20,
    tgt_vocab=15,
    src_max_len=64,
    tgt_max_len=64,
    d_model=32,
    heads=4,
    encoder_layers=2,
    decoder_layers=2,
    d_ff=48,
    dropout=0.1,
)


@pytest.fixture(scope="module", params=["post", "pre"])
def model(request):
    """In double precision, so that equal means equal up to 1e-12; large embeddings, so that the answers vary."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SIZES, norm=request.param)).double().eval()
    for embedding in (model.src_embedding, model.tgt_embedding):
        torch.nn.init.normal_(embedding.weight)
    return model


def random_ids(rows, length, vocabulary, seed=0):
    return torch.randint(3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-10)


@given(
    rows=st.integers(1, 3),
    heads=st.integers(1, 3),
    T=st.integers(1, 6),
    S=st.integers(1, 6),
    width=st.integers(1, 8),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_attention_is_softmax_of_scaled_products(rows, heads, T, S, width, masked, seed):
    torch.manual_seed(seed)
    q = torch.randn(rows, T, heads, width, dtype=torch.double)
    k, v = (torch.randn(rows, S, heads, width, dtype=torch.double) for _ in "kv")
    mask = torch.rand(rows, 1, 1, S) < 0.6 if masked else None
    if masked:
        mask[..., 0] = True
    score = torch.einsum("bthi,bshi->bhts", q, k) / math.sqrt(width)
    if masked:
        score = score.masked_fill(~mask, -torch.inf)
    assert close(attend(q, k, v, mask), torch.einsum("bhts,bshi->bthi", score.softmax(-1), v))


def test_causal_attention_sees_no_later_key():
    q, k, v = (torch.randn(2, 5, 3, 4, dtype=torch.double) for _ in "qkv")
    score = torch.einsum("bthi,bshi->bhts", q, k) / 2
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = torch.einsum("bhts,bshi->bthi", score.masked_fill(later, -torch.inf).softmax(-1), v)
    assert close(attend(q, k, v, causal=True), expected)


def test_rotation_is_a_complex_phase_and_products_depend_on_the_distance_only():
    length, width = 12, 8
    table = rotary_table(torch.arange(length), width)
    x, y = torch.randn(2, width, dtype=torch.double)
    turned = rotate(x.expand(length, 1, width), table)[:, 0]
    for position in range(length):
        for pair in range(width // 2):
            phase = torch.exp(1j * torch.tensor(position * 10000.0 ** (-2 * pair / width), dtype=torch.double))
            expected = torch.complex(x[pair], x[pair + width // 2]) * phase
            assert abs(torch.complex(turned[position, pair], turned[position, pair + width // 2]) - expected) < 1e-10
    products = turned @ rotate(y.expand(length, 1, width), table)[:, 0].T
    for distance in range(length):
        along = products.diagonal(distance)
        assert (along - along[0]).abs().max() < 1e-10


def slow_attention(q, k, v, positions, causal):
    """
    One row, head by head, pair by pair, from the formulas. q: (T, d); k, v: (S, d); positions: turn q and k by them.
    """
    width = SIZES["d_model"] // SIZES["heads"]
    heads = []
    for head in range(SIZES["heads"]):
        a, b, c = (x[:, head * width : (head + 1) * width] for x in (q, k, v))
        if positions:
            a, b = (
                torch.cat(
                    [rotate(token[None], rotary_table(torch.tensor([at]), width)[0]) for at, token in enumerate(x)]
                )
                for x in (a, b)
            )
        score = a @ b.T / math.sqrt(width)
        if causal:
            score = score + torch.full_like(score, -torch.inf).triu(1)
        heads.append(score.softmax(-1) @ c)
    return torch.cat(heads, dim=1)


def slow_forward(model, src, tgt):
    """The encoder-decoder for one row without padding, one formula a line. src (S,), tgt (T,) -> (T, V)"""

    def residual(x, norm, branch):
        return x + branch(norm(x)) if model.config.norm == "pre" else norm(x + branch(x))

    def self_attention(x, layer, causal):
        def branch(x):
            q, k, v = layer.attention.qkv(x).chunk(3, dim=-1)
            return layer.attention.out(slow_attention(q, k, v, positions=True, causal=causal))

        return residual(x, layer.norm1, branch)

    def mlp(x, norm, mlp):
        def branch(x):
            hidden = mlp.up(x)
            return mlp.down(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)

        return residual(x, norm, branch)

    x = model.src_embedding(src)
    for layer in model.encoder:
        x = mlp(self_attention(x, layer, causal=False), layer.norm2, layer.mlp)
    memory = model.encoder_norm(x)
    x = model.tgt_embedding(tgt)
    for layer in model.decoder:
        x = self_attention(x, layer, causal=True)
        k, v = layer.cross.kv(memory).chunk(2, dim=-1)
        x = residual(
            x,
            layer.norm2,
            lambda x: layer.cross.out(slow_attention(layer.cross.q(x), k, v, positions=False, causal=False)),
        )
        x = mlp(x, layer.norm3, layer.mlp)
    return model.head(model.decoder_norm(x))


def test_the_model_is_its_formulas(model):
    src, tgt = random_ids(1, 7, SIZES["src_vocab"]), random_ids(1, 5, SIZES["tgt_vocab"])
    assert close(padded(model, src, tgt)[0], slow_forward(model, src[0], tgt[0]))


def test_the_order_of_the_tokens_matters(model):
    src, tgt = random_ids(1, 6, SIZES["src_vocab"]), random_ids(1, 4, SIZES["tgt_vocab"])
    assert not close(padded(model, src, tgt), padded(model, src.flip(1), tgt))
    assert not close(padded(model, src, tgt)[:, -1], padded(model, src, tgt[:, [1, 0, 2, 3]])[:, -1])


@given(T=st.integers(2, 10), changed=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_a_target_token_changes_no_earlier_logits(model, T, changed, seed):
    changed = min(changed, T - 1)
    src, tgt = random_ids(2, 7, SIZES["src_vocab"], seed), random_ids(2, T, SIZES["tgt_vocab"], seed)
    other = tgt.clone()
    other[:, changed] = (other[:, changed] - 2) % (SIZES["tgt_vocab"] - 3) + 3
    before, after = padded(model, src, tgt), padded(model, src, other)
    assert close(before[:, :changed], after[:, :changed])
    assert not close(before[:, changed:], after[:, changed:])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=5), st.integers(0, 99))
@settings(max_examples=25)
def test_a_row_alone_is_the_row_in_a_padded_batch(model, lengths, seed):
    S, T = (max(side) for side in zip(*lengths))
    src, tgt = (
        random_ids(len(lengths), S, SIZES["src_vocab"], seed),
        random_ids(len(lengths), T, SIZES["tgt_vocab"], seed),
    )
    for row, (s, t) in enumerate(lengths):
        src[row, s:], tgt[row, t:] = PAD, PAD
    together = padded(model, src, tgt)
    for row, (s, t) in enumerate(lengths):
        assert close(together[row, :t], padded(model, src[row : row + 1, :s], tgt[row : row + 1, :t])[0])


def test_dropout_acts_in_training_only():
    model = Transformer(ModelConfig(**SIZES))
    src, tgt = random_ids(2, 5, SIZES["src_vocab"]), random_ids(2, 5, SIZES["tgt_vocab"])
    assert not torch.equal(padded(model, src, tgt), padded(model, src, tgt))
    model.eval()
    assert torch.equal(padded(model, src, tgt), padded(model, src, tgt))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"heads": 5}, "d_model: 32 does not divide into 5 heads"),
        ({"heads": 32}, "does not divide into 32 heads of an even width"),
        ({"encoder_layers": 0}, "encoder_layers: got 0, wanted at least 1"),
        ({"dropout": 1.0}, "dropout: got 1.0"),
    ],
)
def test_an_impossible_architecture_is_one_clear_line(change, message):
    with pytest.raises(InputError) as error:
        ModelConfig(**SIZES | change)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x", "", "meta", "hpu", "privateuseone"])
def test_an_impossible_device_is_one_clear_line(name):
    with pytest.raises(InputError, match="device: ") as error:
        find_device(name)
    assert "\n" not in str(error.value)


def test_auto_is_a_device_that_works():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
