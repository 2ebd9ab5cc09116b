"""
Attention: every way of computing it against the formula, on rows packed end to end; gradients with and without kept
activations.
"""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import padded

import attention
from attention import HOW, attend, attend_packed, pack_rows, pad_rows
from batches import to_device
from model import ModelConfig, Transformer
from runtime.files import InputError
from tokenizer import BOS, EOS, PAD

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
on_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0), reason="needs a GPU from A100 on"
)


def close(a, b, atol=1e-10):
    return torch.allclose(a, b, rtol=0, atol=atol)


def rows_of(lengths):
    return pack_rows(torch.tensor(lengths))


def varlen_by_formula(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1)):
    """
    torch.nn.attention.varlen.varlen_attn in place of the GPU's: the call as torch documents it, checked; the formula
    for each row.
    """
    assert query.dim() == key.dim() == value.dim() == 3 and query.dtype == key.dtype == value.dtype
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and window_size in ((-1, -1), (-1, 0))
    assert (cu_seq_q[0], cu_seq_q[-1], cu_seq_k[0], cu_seq_k[-1]) == (0, len(query), 0, len(key))
    assert (cu_seq_q.diff().max(), cu_seq_k.diff().max()) <= (max_q, max_k)
    out = torch.empty_like(query)
    for (a, b), (c, d) in zip(zip(cu_seq_q[:-1], cu_seq_q[1:]), zip(cu_seq_k[:-1], cu_seq_k[1:])):
        for head in range(query.shape[1]):
            score = query[a:b, head] @ key[c:d, head].T / math.sqrt(query.shape[2])
            if window_size == (-1, 0):
                score = score - torch.full_like(score, torch.inf).triu(1)
            out[a:b, head] = score.softmax(-1) @ value[c:d, head]
    return out


@pytest.fixture
def emulated(monkeypatch):
    """A machine on which varlen runs, as far as attention.py can see."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_by_formula)
    monkeypatch.setattr(attention, "varlen_missing", lambda *where: "")


def by_every_way(monkeypatch, q, k, v, queries, keys, causal, grad):
    """{how: (output, dq, dk, dv)}; "padded" is what sdpa does on a GPU."""
    results = {}
    for how in ("varlen", "sdpa", "padded", "reference"):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        with monkeypatch.context() as patch:
            if how == "padded":
                patch.setattr(attention, "one_by_one", attention.with_padding)
            out = attend_packed(*inputs, queries, keys, causal, "sdpa" if how == "padded" else how)
        results[how] = out, *torch.autograd.grad(out, inputs, grad)
    return results


@pytest.mark.parametrize("kind", ["self", "causal", "cross"])
@pytest.mark.parametrize("lengths", [[5], [1], [1, 1, 1], [4, 4], [7, 1, 3, 12, 1, 5]])
def test_every_way_gives_the_same_values_and_gradients(emulated, monkeypatch, kind, lengths):
    torch.manual_seed(0)
    queries = rows_of(lengths)
    keys = rows_of([3 + 2 * length % 5 for length in lengths]) if kind == "cross" else queries
    q, grad = torch.randn(2, len(queries.row), 3, 8, dtype=torch.double)
    k, v = torch.randn(2, len(keys.row), 3, 8, dtype=torch.double)
    results = by_every_way(monkeypatch, q, k, v, queries, keys, kind == "causal", grad)
    for how, values in results.items():
        for ours, expected in zip(values, results["reference"]):
            assert close(ours, expected), how


def test_torchs_own_kernel_takes_this_call():
    """On the meta device, where the kernel's shapes are known without a GPU: forward and backward."""
    rows = rows_of([3, 1, 6])
    q, k, v = (torch.randn(10, 2, 16, device="meta", dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
    for causal in (False, True):
        attention.varlen(q, k, v, rows, rows, causal).sum().backward()
    assert q.grad.shape == k.grad.shape == v.grad.shape == q.shape


@pytest.mark.parametrize("causal", [False, True])
def test_a_packed_row_sees_its_own_keys_only(causal):
    """Against padded attention of each row alone, whose formula test_model.py checks; and no other row moves it."""
    lengths = [3, 1, 6]
    rows = rows_of(lengths)
    q, k, v = torch.randn(3, sum(lengths), 2, 4, dtype=torch.double)
    for how in ("sdpa", "reference"):
        out = attend_packed(q, k, v, rows, rows, causal, how)
        for a, b in zip(rows.start[:-1], rows.start[1:]):
            assert close(out[a:b], attend(q[None, a:b], k[None, a:b], v[None, a:b], causal=causal)[0])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=40)
def test_packing_is_undone_by_padding(lengths):
    rows = rows_of(lengths)
    x = torch.randn(len(lengths), max(lengths), 2, dtype=torch.double)
    packed = x[rows.row, rows.position]
    assert rows.start.tolist() == [sum(lengths[:r]) for r in range(len(lengths) + 1)]
    assert rows.position.tolist() == [place for length in lengths for place in range(length)]
    for row, (a, b) in enumerate(zip(rows.start[:-1], rows.start[1:])):
        assert torch.equal(packed[a:b], x[row, : lengths[row]])
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    assert torch.equal(pad_rows(packed, rows), x * real[..., None])


def batch(lengths=((7, 9), (2, 3), (10, 1), (1, 12))):
    """src (B, S), tgt (B, T + 1) with the (source, target) lengths of the rows, each side with its end token."""
    generator = torch.Generator().manual_seed(0)
    S, T = (max(side) for side in zip(*lengths))
    src, tgt = (torch.randint(3, 15, (len(lengths), length), generator=generator) for length in (S, T + 1))
    for row, (s, t) in enumerate(lengths):
        src[row, s - 1], src[row, s:], tgt[row, 0], tgt[row, t], tgt[row, t + 1 :] = EOS, PAD, BOS, EOS, PAD
    return src, tgt


def gradients(model, src, tgt):
    model.zero_grad()
    loss = torch.nn.functional.cross_entropy(
        padded(model, src, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=PAD
    )
    loss.backward()
    return [loss.detach()] + [weight.grad.clone() for weight in model.parameters()]


def test_the_model_trains_alike_with_every_attention(emulated):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SIZES | {"dropout": 0.0})).double()
    results = {}
    for model.attention in HOW:
        results[model.attention] = gradients(model, *batch())
    for how in HOW:
        assert all(close(a, b) for a, b in zip(results[how], results["reference"])), how


def test_in_mixed_precision_the_kernel_gets_half_precision(emulated):
    """
    q and k, turned by angles in fp32, must come in the type of v: the emulated kernel, like the GPU's, takes no two
    types.
    """
    model = Transformer(ModelConfig(**SIZES), "varlen")
    seen = set()
    model.decoder[0].attention.out.register_forward_hook(lambda layer, inputs, output: seen.add(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        gradients(model, *batch())
    assert seen == {torch.bfloat16}


def test_nothing_is_computed_for_padding():
    """The matrix products see the tokens of the rows and no other, and nothing after the end token of a target."""
    seen = {}
    model = Transformer(ModelConfig(**SIZES))
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(
                lambda layer, inputs, output, name=name: seen.update({name: inputs[0].shape[:-1]})
            )
    src, tgt = batch(((7, 9), (2, 3), (10, 1)))
    logits = padded(model, src, tgt[:, :-1])
    for name, shape in seen.items():
        assert shape == (7 + 2 + 10 if name.startswith("encoder") or name.endswith("cross.kv") else 9 + 3 + 1,), name
    assert logits.shape == (3, 9, 15) and not logits[1, 3:].any() and not logits[2, 1:].any() and logits[0].any(1).all()


def test_checkpointed_layers_give_the_same_gradients_with_the_same_dropout():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SIZES)).double()
    results = {}
    for model.checkpoint_layers in (False, True):
        torch.manual_seed(1)
        results[model.checkpoint_layers] = gradients(model, *batch()) + [
            torch.rand(1)
        ]  # the generator goes on alike too
    assert all(torch.equal(a, b) for a, b in zip(results[False], results[True]))


def kept_for_backward(model, src, tgt):
    """Bytes of the activations that wait for the backward pass, each storage once."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages = {}

    def note(tensor):
        storages[tensor.untyped_storage().data_ptr()] = (
            tensor.untyped_storage()
        )  # kept here, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = padded(model, src, tgt)
    return sum(storage.nbytes() for address, storage in storages.items() if address not in weights), logits


@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_memory_grows_linearly_with_the_length(checkpoint_layers):
    model = Transformer(ModelConfig(**SIZES), checkpoint_layers=checkpoint_layers)
    small, double = (kept_for_backward(model, *batch([(length, length)]))[0] for length in (256, 512))
    assert double < 2.05 * small


def test_checkpointed_layers_keep_less():
    keeps = {}
    for on in (False, True):
        keeps[on] = kept_for_backward(Transformer(ModelConfig(**SIZES), checkpoint_layers=on), *batch([(256, 256)]))[0]
    assert keeps[True] < 0.5 * keeps[False]


def test_torch_compile_makes_one_graph_of_a_layer():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SIZES)).double().eval()
    rows = rows_of([7, 1, 10])
    x, rotary = (
        torch.randn(18, SIZES["d_model"], dtype=torch.double),
        model.positional_encoding("encoder", 10)[rows.position],
    )
    see = partial(attend_packed, queries=rows, keys=rows)
    compiled = torch.compile(model.encoder[0], backend="eager", fullgraph=True)
    assert close(compiled(x, rotary, see), model.encoder[0](x, rotary, see))


def test_an_unknown_attention_is_one_clear_line():
    with pytest.raises(InputError, match="attention: got 'flash', wanted auto, varlen, sdpa, reference"):
        Transformer(ModelConfig(**SIZES), "flash")


def test_varlen_where_it_cannot_run_is_one_clear_line():
    with pytest.raises(InputError, match="attention: varlen needs a GPU, the device is cpu; auto takes what there is"):
        padded(Transformer(ModelConfig(**SIZES), "varlen"), *batch())


@pytest.mark.parametrize(
    "capability, installed, activated",
    [
        ((9, 0), {"flash_attn", "flash_attn.cute", "flash_attn_interface"}, ["FA4"]),
        ((9, 0), {"flash_attn", "flash_attn_interface"}, ["FA3"]),
        ((8, 0), {"flash_attn", "flash_attn.cute", "flash_attn_interface"}, []),
        ((10, 0), {"flash_attn_interface"}, []),
        ((9, 0), set(), []),
    ],
)
def test_a_newer_flash_attention_is_used_where_it_is_installed_and_fits(monkeypatch, capability, installed, activated):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", calls.append)
    for how in HOW:
        attention.set_up(how)
    assert calls == 2 * activated  # for auto and varlen


def test_a_flash_attention_that_cannot_be_used_is_named_and_torch_s_own_taken(monkeypatch, capsys):
    def broken(name):
        raise ModuleNotFoundError("no cutlass")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name.startswith("flash_attn.") or name == "flash_attn")
    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", broken)
    attention.set_up("auto")
    assert "flash_attn is installed, but FA4 cannot be used: ModuleNotFoundError: no cutlass" in capsys.readouterr().err


@on_gpu
@pytest.mark.parametrize("kind", ["self", "causal", "cross"])
@pytest.mark.parametrize("lengths", [[5], [1, 1, 1], [70, 1, 300, 12, 129]])
def test_the_gpu_kernel_in_bf16(monkeypatch, kind, lengths):
    """
    By flash-attention's rule: the error against fp32 is at most twice that of the plain formula in bf16, value and
    gradients.
    """
    torch.manual_seed(0)
    queries = to_device(rows_of(lengths), "cuda")
    keys = to_device(rows_of([3 + 2 * length % 5 for length in lengths]), "cuda") if kind == "cross" else queries
    q, grad = torch.randn(2, len(queries.row), 4, 64, device="cuda")
    k, v = torch.randn(2, len(keys.row), 4, 64, device="cuda")
    values = {}
    rounded = [x.bfloat16() for x in (q, k, v)]
    for name, how, dtype in (
        ("varlen", "varlen", torch.bfloat16),
        ("sdpa", "sdpa", torch.bfloat16),
        ("plain", "reference", torch.bfloat16),
        ("exact", "reference", torch.float32),
    ):
        inputs = [x.to(dtype).requires_grad_() for x in rounded]
        out = attend_packed(*inputs, queries, keys, kind == "causal", how)
        values[name] = out, *torch.autograd.grad(out, inputs, grad.bfloat16().to(dtype))
    for how in ("varlen", "sdpa"):
        for ours, plain, exact in zip(values[how], values["plain"], values["exact"]):
            assert (ours.float() - exact).abs().max() <= 2 * (plain.float() - exact).abs().max() + 1e-5, how


@on_gpu
def test_the_model_trains_alike_on_a_gpu_in_bf16():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SIZES | {"dropout": 0.0})).cuda()
    src, tgt = (side.cuda() for side in batch())
    model.attention = "reference"
    expected = gradients(model, src, tgt)
    model.attention = "varlen"
    with torch.autocast("cuda", torch.bfloat16):
        ours = gradients(model, src, tgt)
    norm = math.sqrt(sum(x.square().sum().item() for x in expected))
    assert math.sqrt(sum((a - b).square().sum().item() for a, b in zip(ours, expected))) < 0.05 * norm
