"""
Every choice of architecture: decoding with the cache, packing, gradients, copies and checkpoints do not change what
it computes.
"""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from tiny import padded
from torch.utils.flop_counter import FlopCounterMode

import train as optim
from configurator import load_settings
from dataset.vocabulary import join_vocabulary
from generate import beam_search, for_decoding, sample
from model import ARCHITECTURE, Dropout, ModelConfig, Transformer, config_of, load_model, sinusoidal_table
from runtime import checkpoint
from runtime.files import InputError
from runtime.hardware import training_flops
from tokenizer import BOS, FORMAT, PAD, SPECIALS

SIZES = dict(
    src_vocab=12,
    tgt_vocab=12,
    src_max_len=16,
    tgt_max_len=16,
    d_model=16,
    heads=2,
    encoder_layers=2,
    decoder_layers=2,
    d_ff=24,
    dropout=0.0,
)
KAN = dict(ffn="sinekan", kan_grid=3)
CHOICES = {
    "post": dict(norm="post"),
    "sinusoidal": dict(positions="sinusoidal"),
    "learned": dict(positions="learned"),
    "tied": dict(embeddings="tied"),
    "shared": dict(embeddings="shared", positions="sinusoidal"),
    "relu": dict(activation="relu"),
    "relu2": dict(activation="relu2"),
    "swiglu": dict(activation="swiglu"),
    "qk norm": dict(qk_norm=True),
    "bias": dict(bias=True),
    "narrow encoder": dict(encoder_d_model=8, encoder_d_ff=12),
    "wide encoder": dict(encoder_d_model=24, positions="learned", norm="post"),
    "kan": KAN,
    "one kan": KAN | dict(kan_ff_dims="none"),
    "three kans": KAN | dict(kan_ff_dims="5 6"),
    "last kan": KAN | dict(kan_layers="decoder:last"),
    "latent": dict(n_latent=3),
    "latent of a narrow encoder": dict(n_latent=2, encoder_d_model=8, encoder_d_ff=12, norm="post"),
    "kan end": KAN | dict(kan_layers="decoder:2 encoder:1", kan_ff_dims="7 20", kan_end=True),
    "s-kanformer": KAN
    | dict(kan_layers="decoder:last", kan_ff_dims="20", kan_end=True, norm="post", positions="sinusoidal", bias=True),
}


def model_of(choice, **more):
    torch.manual_seed(0)
    return Transformer(ModelConfig(**SIZES | CHOICES[choice] | more)).double().eval()


def batch(lengths=((7, 5), (2, 9), (10, 1))):
    generator = torch.Generator().manual_seed(0)
    S, T = (max(side) for side in zip(*lengths))
    src, tgt = (torch.randint(3, 12, (len(lengths), length), generator=generator) for length in (S, T))
    for row, (s, t) in enumerate(lengths):
        src[row, s:], tgt[row, 0], tgt[row, t:] = PAD, BOS, PAD
    return src, tgt


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("choice", CHOICES)
def test_answers_written_with_the_cache_have_the_probability_that_the_whole_model_gives_them(choice):
    """With several hypotheses, rows of different lengths, and inputs that leave early."""
    model, (src, _) = model_of(choice), batch()
    uniform = torch.rand(3, 4, 8, generator=torch.Generator().manual_seed(1))
    for found in (beam_search(model, src, 8, 3), sample(model, src, 8, uniform)):
        for row, hypotheses in zip(src, found):
            for hypothesis in hypotheses:
                logprob = padded(model, row[None], torch.tensor([[BOS] + hypothesis.ids[:-1]]))[0].log_softmax(-1)
                assert abs(logprob[range(len(hypothesis.ids)), hypothesis.ids].sum().item() - hypothesis.logprob) < 1e-9


@pytest.mark.parametrize("choice", CHOICES)
def test_logits_are_single_precision_under_autocast(choice):
    model, (src, tgt) = model_of(choice).float(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        logits = padded(model, src, tgt)
    assert logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("choice", CHOICES)
def test_a_row_alone_is_the_row_in_a_batch(choice):
    model, (src, tgt) = model_of(choice), batch()
    together = padded(model, src, tgt)
    for row in range(len(src)):
        s, t = (src[row] != PAD).sum(), (tgt[row] != PAD).sum()
        assert close(together[row, :t], padded(model, src[row : row + 1, :s], tgt[row : row + 1, :t])[0])


@pytest.mark.parametrize("choice", CHOICES)
def test_the_order_of_the_tokens_matters(choice):
    model, src, tgt, swapped = (
        model_of(choice),
        torch.tensor([[3, 4, 5, 6]]),
        torch.tensor([[BOS, 3, 4, 5]]),
        torch.tensor([[BOS, 4, 3, 5]]),
    )
    logits = padded(model, src, tgt)
    assert not torch.allclose(logits, padded(model, src.flip(1), tgt), rtol=0, atol=1e-6)
    assert not torch.allclose(logits[:, 3], padded(model, src, swapped)[:, 3], rtol=0, atol=1e-6)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_weight_is_trained_with_the_same_gradient_in_checkpointed_layers(choice):
    model = model_of(choice).train()
    src, tgt = (torch.arange(12 * 16).view(12, 16) % 9 + 3 for _ in range(2))
    gradients = []
    for model.checkpoint_layers in (False, True):
        model.zero_grad()
        padded(model, src, tgt).logsumexp(-1).square().sum().backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


@pytest.mark.parametrize("choice", CHOICES)
def test_the_copy_for_decoding_computes_the_same(choice):
    model, (src, tgt) = model_of(choice).float(), batch()
    copy = for_decoding(model, "fp32")
    with torch.inference_mode():
        assert torch.allclose(padded(model, src, tgt), padded(copy, src, tgt), rtol=0, atol=1e-4)
        logits = padded(model, src, tgt)
        for dtype, error in (("bf16", 0.05), ("int8", 0.1)):
            assert (padded(for_decoding(model, dtype), src, tgt).float() - logits).norm() < error * logits.norm()


@pytest.mark.parametrize("choice", CHOICES)
def test_a_checkpoint_brings_the_architecture_back(choice, tmp_path):
    model = model_of(choice).float()
    vocabulary = {
        "format": FORMAT,
        "rename_particles": False,
        "src": SPECIALS + [str(n) for n in range(9)],
        "tgt": SPECIALS + [str(n) for n in range(9)],
    }
    checkpoint.save(
        tmp_path / "best.pt",
        {"model": model.state_dict(), "model_config": asdict(model.config), "vocabulary": vocabulary},
    )
    loaded = load_model(tmp_path / "best.pt", torch.device("cpu"))[0]
    assert loaded.config == model.config and torch.equal(padded(loaded, *batch()), padded(model, *batch()))
    assert len(list(loaded.parameters())) == len(list(model.parameters()))  # what was one matrix is one again


@pytest.mark.parametrize("choice", CHOICES)
def test_training_flops_are_those_that_torch_counts(choice):
    """On rows without padding; of one target token, as torch counts the masked pairs of causal attention too."""
    sizes = dict(
        d_model=64,
        d_ff=96,
        encoder_d_model=4 * CHOICES[choice].get("encoder_d_model", 16),
        encoder_d_ff=4 * CHOICES[choice].get("encoder_d_ff", 24),
    )
    model, B, S, T = model_of(choice, **sizes).float(), 2, 16, 1
    model.attention = "reference"
    with FlopCounterMode(display=False) as counter:
        padded(model, torch.full((B, S), 5), torch.full((B, T), 5)).sum().backward()
    assert training_flops(model.config, np.full(B, S), np.full(B, T)) == pytest.approx(
        counter.get_total_flops(), rel=0.03
    )


def test_defaults_are_the_architecture_of_the_first_checkpoints():
    """
    These have neither the younger settings nor other weights; they are pre-norm, which has since ceased to be the
    default.
    """
    model = Transformer(config_of({"model_config": SIZES}))
    attention, norm = ["qkv.weight", "out.weight"], ["weight", "bias"]
    mlp = [f"mlp.{part}.{name}" for part in ("up", "down") for name in norm]
    layers = {
        "encoder": [f"attention.{name}" for name in attention]
        + mlp
        + [f"norm{n}.{name}" for n in (1, 2) for name in norm]
    }
    layers["decoder"] = (
        layers["encoder"] + [f"cross.{name}.weight" for name in ("q", "kv", "out")] + [f"norm3.{name}" for name in norm]
    )
    expected = [f"{side}.{layer}.{name}" for side in layers for layer in range(2) for name in layers[side]]
    expected += [
        "src_embedding.weight",
        "tgt_embedding.weight",
        "head.weight",
        *(f"{side}_norm.{name}" for side in layers for name in norm),
    ]
    assert sorted(model.state_dict()) == sorted(expected)


def test_sinusoidal_positions_are_the_published_formula():
    table = sinusoidal_table(torch.arange(20), 6)
    for position in range(20):
        for i in range(3):
            angle = torch.tensor(position / 10000 ** (2 * i / 6), dtype=torch.double)
            assert close(table[position, 2 * i], angle.sin()) and close(table[position, 2 * i + 1], angle.cos())
    model, ids = model_of("sinusoidal"), torch.tensor([[3, 5, 4]])
    stream, rotary = model.embed(ids, "decoder", model.positional_encoding("decoder", 3))
    assert rotary is None and close(
        stream, 4 * model.tgt_embedding(ids) + sinusoidal_table(torch.arange(3), 16)
    )  # sqrt(16) times the embeddings


def test_post_norm_normalises_the_sum_and_nothing_comes_after():
    model, (src, _) = model_of("post"), batch([(7, 5)])
    layer = model.encoder[1]
    stream = []
    layer.norm1.register_forward_hook(lambda module, inputs, output: stream.append((inputs[0], output)))
    layer.register_forward_pre_hook(lambda module, inputs: stream.append(inputs[0]))
    memory, _ = model.encode(src)
    x, (total, y) = stream
    assert close(x.mean(-1), torch.zeros(1, 7).double()) and close(
        memory.mean(-1), torch.zeros(1, 7).double()
    )  # both come from a norm
    assert not close(total, x)
    assert close(memory, torch.nn.functional.layer_norm(y + layer.mlp(y), (16,)))


def test_learned_positions_end_where_they_were_trained_for():
    model, (src, tgt) = model_of("learned"), batch([(17, 5)])
    with pytest.raises(InputError, match="positions: learned for 16 tokens of the encoder, a row has 17"):
        padded(model, src, tgt)


@pytest.mark.parametrize("choice", ["tied", "shared"])
def test_tied_embeddings_are_one_matrix(choice):
    model = model_of(choice)
    assert model.tgt_embedding.weight is model.head.weight
    assert (model.src_embedding.weight is model.head.weight) == (choice == "shared")
    logits = padded(model, *batch())
    assert logits[logits != 0].std() < 3  # of random weights: more would be a start far from even probabilities


def test_a_joint_vocabulary_has_the_tokens_of_both_sides_once():
    joint = join_vocabulary({"format": FORMAT, "src": SPECIALS + ["a", "c"], "tgt": SPECIALS + ["b", "a"]})
    assert joint["src"] == joint["tgt"] and joint["src"][: len(SPECIALS)] == SPECIALS
    assert {"a", "b", "c"} <= set(joint["src"]) and len(set(joint["src"])) == len(joint["src"])


def test_muon_gets_the_amplitudes_and_nothing_decays_the_frequencies():
    model = model_of("kan").float()
    settings = load_settings(
        "", ["optimizer", "weight_decay", "beta1", "beta2"], ["--optimizer=muon", "--weight_decay=0.5"]
    )
    (muon, adamw), views = optim.make_optimizers(model, settings)
    kan = model.decoder[0].mlp[0]
    assert any(weight is kan.mix.weight for _, weight, _ in views)
    decays = {id(weight): group["weight_decay"] for group in adamw.param_groups for weight in group["params"]}
    assert decays[id(kan.frequency)] == decays[id(kan.mix.bias)] == 0
    padded(model, *batch()).square().sum().backward()
    for view, weight, rows in views:
        view.grad = weight.grad[rows]
    muon.step()


@pytest.mark.parametrize(
    "layers, kans",
    [
        ("all", "e1 e2 e3 d1 d2"),
        ("encoder", "e1 e2 e3"),
        ("decoder", "d1 d2"),
        ("decoder:last", "d2"),
        ("encoder:1 decoder:2", "e1 d2"),
        ("encoder:last decoder", "e3 d1 d2"),
    ],
)
def test_the_chosen_layers_have_the_sinekan(layers, kans):
    config = ModelConfig(**SIZES | KAN | dict(kan_layers=layers, encoder_layers=3))
    counts = {"encoder": 3, "decoder": 2}
    assert (
        " ".join(f"{side[0]}{n + 1}" for side, count in counts.items() for n in range(count) if config.has_kan(side, n))
        == kans
    )


def test_by_default_a_sinekan_has_the_weights_of_the_mlp():
    sizes = SIZES | dict(d_model=128, heads=4, d_ff=512)
    mlp, kan = (
        sum(
            weight.numel()
            for weight in Transformer(ModelConfig(**sizes, ffn=ffn)).decoder[0].mlp.parameters()
            if weight.dim() == 2
        )
        for ffn in ("mlp", "sinekan")
    )
    assert mlp == kan == 2 * 128 * 512


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(norm="none"), "norm: got 'none', wanted pre, post"),
        (dict(positions="relative"), "positions: got 'relative', wanted rotary, sinusoidal, learned"),
        (dict(embeddings="one"), "embeddings: got 'one', wanted separate, tied, shared"),
        (dict(activation="tanh"), "activation: got 'tanh', wanted gelu, relu, relu2, swiglu"),
        (dict(ffn="kan"), "ffn: got 'kan', wanted mlp, sinekan"),
        (dict(encoder_d_model=-8), "encoder_d_model: got -8, wanted at least 0"),
        (dict(encoder_d_model=6), "encoder_d_model: 6 does not divide into 2 heads"),
        (dict(kan_grid=0), "kan_grid: got 0, wanted at least 1"),
        (
            dict(embeddings="shared", src_vocab=11),
            "embeddings: shared needs one vocabulary and one width, these are 11 x 16 and 12 x 16",
        ),
        (dict(embeddings="shared", encoder_d_model=8), "these are 12 x 8 and 12 x 16"),
        (KAN | dict(kan_layers="last"), "kan_layers: got 'last', wanted all, encoder, decoder"),
        (KAN | dict(kan_layers=""), "kan_layers: got ''"),
        (KAN | dict(kan_layers="decoder:3"), "kan_layers: got 'decoder:3'.*with N from 1 to 2"),
        (KAN | dict(kan_layers="all decoder:0"), "kan_layers: got 'decoder:0'"),
        (KAN | dict(kan_ff_dims="4,4"), "kan_ff_dims: got '4,4', wanted widths"),
        (KAN | dict(kan_ff_dims="0"), "kan_ff_dims: got '0'"),
        (KAN | dict(kan_layers="encoder", kan_ff_dims="x"), "kan_ff_dims: got 'x'"),
        (dict(kan_end=True), "kan_end: needs ffn=sinekan in the last layer of the decoder, and widths in kan_ff_dims"),
        (KAN | dict(kan_end=True), "kan_end: needs"),
        (KAN | dict(kan_end=True, kan_ff_dims="none"), "kan_end: needs"),
        (
            KAN | dict(kan_end=True, kan_ff_dims="20", embeddings="tied"),
            "kan_end: the head reads a width of 20, so embeddings cannot be tied",
        ),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        ModelConfig(**SIZES | change)
    assert "\n" not in str(error.value)


def parameters_of(config_file):
    settings = load_settings("", [*ARCHITECTURE, "dropout", "src_max_len", "tgt_max_len"], [config_file])
    sizes = {name: getattr(settings, name) for name in [*ARCHITECTURE, "dropout", "src_max_len", "tgt_max_len"]}
    with torch.device("meta"):
        return sum(
            weight.numel() for weight in Transformer(ModelConfig(src_vocab=200, tgt_vocab=100, **sizes)).parameters()
        )


def test_published_architectures_have_the_published_number_of_parameters():
    """
    Counted from the layers of the published code: attention of four matrices with bias, an MLP, two or three norms;
    embeddings of 200 source and 100 target tokens, and a head with bias.
    """
    attention = 4 * (512 * 512 + 512)
    mlp = (512 * 4096 + 4096) + (4096 * 512 + 512)
    norm = 2 * 512
    encoder_layer = attention + mlp + 2 * norm
    decoder_layer = 2 * attention + mlp + 3 * norm
    embeddings = 200 * 512 + 100 * 512
    assert parameters_of("config/flash.py") == 3 * encoder_layer + 3 * decoder_layer + embeddings + (512 * 100 + 100)

    sinekan = 4096 * 512 * 8 + 8 + 4096  # amplitudes, frequencies, bias
    last_layer = 2 * attention + sinekan + 2 * norm + 2 * 4096  # its last norm is as wide as the SineKAN's outputs
    assert parameters_of("config/skanformer.py") == 3 * encoder_layer + 2 * decoder_layer + last_layer + embeddings + (
        4096 * 100 + 100
    )


def test_a_checkpoint_of_an_architecture_that_is_gone_says_so():
    assert config_of({"model_config": SIZES | {"kan_embed": False}}) == ModelConfig(**SIZES, norm="pre")
    with pytest.raises(InputError, match="kan_embed: SineKANs on the embeddings are no longer supported"):
        config_of({"model_config": SIZES | {"kan_embed": True}})


def test_qk_norm_makes_attention_blind_to_the_size_of_queries_and_keys():
    src, tgt = batch()
    for qk_norm in (True, False):
        model = model_of("qk norm", qk_norm=qk_norm)
        before = padded(model, src, tgt).detach()
        with torch.no_grad():
            for layer in model.decoder:
                layer.attention.qkv.weight[:32] *= 3  # queries and keys of self-attention, d = 16 each
                layer.cross.q.weight *= 3
                layer.cross.kv.weight[:16] *= 3
        assert torch.allclose(padded(model, src, tgt), before, atol=1e-4) == qk_norm


@pytest.mark.parametrize("ffn", ["mlp", "sinekan"])
def test_with_zero_init_the_layers_begin_as_the_identity(ffn):
    model = model_of("post", norm="pre", zero_init=True, ffn=ffn)
    x = torch.randn(5, 16, dtype=torch.double)
    rope = model.positional_encoding("encoder", 5)
    assert torch.equal(model.encoder[0](x, rope, lambda q, k, v: v), x)
    assert not torch.equal(model_of("post", norm="pre", ffn=ffn).encoder[0](x, rope, lambda q, k, v: v), x)


def test_relu2_is_the_square_of_relu():
    mlp = model_of("relu2").encoder[0].mlp
    x = torch.randn(5, 16, dtype=torch.double)
    assert close(mlp(x), mlp.down(torch.relu(mlp.up(x)) ** 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_on_a_cpu_has_its_rate_in_each_of_the_four_parts_of_a_draw(dtype):
    torch.manual_seed(0)
    dropout, x = Dropout(0.25), torch.ones(400_003, dtype=dtype, requires_grad=True)
    y = dropout(x)
    y.backward(torch.ones_like(y))
    assert torch.equal(x.grad, y.detach())
    assert set(y.detach().unique().tolist()) == {0.0, torch.tensor(4 / 3, dtype=dtype).item()}
    dropped = (y[:400_000].view(-1, 4) == 0).float().mean(0)  # of 100,000 each: a standard deviation is 0.0014
    assert (dropped - 0.25).abs().max() < 0.007
    assert torch.equal(dropout.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
