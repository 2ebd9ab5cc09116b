"""Decoding: the KV cache changes nothing, samples follow the model's distribution, a full beam is exhaustive search."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import padded
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import generate
from generate import KVCache, beam_search, decode_step, draw, for_decoding, greedy, sample
from model import ModelConfig, Transformer
from runtime import graphs
from tokenizer import BOS, EOS, PAD

SIZES = dict(src_vocab=20, tgt_vocab=15, src_max_len=64, tgt_max_len=64, d_model=32, heads=4, encoder_layers=2,
             decoder_layers=2, d_ff=48, dropout=0.1, norm="pre")


def random_model(seed=0, **sizes):
    """In double precision, so that equal means equal up to 1e-12; large embeddings, so that the answers vary."""
    torch.manual_seed(seed)
    model = Transformer(ModelConfig(**SIZES | sizes)).double().eval()
    for embedding in (model.src_embedding, model.tgt_embedding):
        torch.nn.init.normal_(embedding.weight)
    return model


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def small():
    """Six tokens, so that every sequence can be listed: PAD, BOS, EOS and three more."""
    return random_model(5, tgt_vocab=6, d_model=16, heads=2, encoder_layers=1, decoder_layers=2)


def random_ids(rows, length, vocabulary, seed=0):
    return torch.randint(3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


def ragged(lengths, seed=0):
    src = random_ids(len(lengths), max(lengths), SIZES["src_vocab"], seed)
    for row, length in enumerate(lengths):
        src[row, length:] = PAD
    return src


def logprob_of(model, src, ids):
    """Log-probabilities of the tokens of one answer, the whole target at once: no cache. src: (S,)"""
    scores = padded(model, src[None], torch.tensor([[BOS] + ids[:-1]]))[0].log_softmax(-1)
    return scores[range(len(ids)), ids]


def every_answer(model, src, max_len, first=BOS):
    """[(logprob, ids)] of every sequence that ends within max_len tokens, the best first."""
    V = model.config.tgt_vocab
    answers = []
    for length in range(max_len):
        for body in itertools.product([token for token in range(V) if token != EOS], repeat=length):
            answers.append([*body, EOS])
    with torch.no_grad():
        longest = torch.tensor([[first] + ids + [PAD] * (max_len - len(ids)) for ids in answers])
        scores = padded(model, src[None].expand(len(answers), -1), longest[:, :-1]).log_softmax(-1)
    chosen = scores.gather(2, longest[:, 1:, None])[..., 0]
    return sorted(((chosen[row, :len(ids)].sum().item(), ids) for row, ids in enumerate(answers)), reverse=True)


# ---------------------------------------------------------------------------------------------------------------------
# The cache

def feed(model, token, cache):
    """decode_step at the next position."""
    cache.reserve()
    cache.advance()
    return decode_step(model, token, cache)


@torch.no_grad()
def test_step_by_step_is_the_whole_target_at_once(model):
    src, tgt = ragged([9, 3, 6]), random_ids(3, 40, SIZES["tgt_vocab"])  # more tokens than the cache's first room
    tgt[:, 0] = BOS
    whole = padded(model, src, tgt).log_softmax(-1)
    cache = KVCache(model, src, 1, 40)
    for position in range(40):
        assert torch.allclose(
            feed(model, tgt[:, position, None], cache)[:, 0], whole[:, position], rtol=0, atol=1e-10
        )


@given(st.integers(1, 4), st.integers(0, 10**6), st.integers(1, 45))
@settings(max_examples=25)
@torch.no_grad()
def test_hypotheses_that_fork_and_die_see_their_own_past_only(model, K, seed, length):
    """Any history of beams, inputs that leave: the cache gives the scores that the model gives the whole text."""
    generator = torch.Generator().manual_seed(seed)
    src = ragged([5, 8, 2], seed)
    cache, texts = KVCache(model, src, K, length), [[[BOS] for _ in range(K)] for _ in src]
    for position in range(length):
        token = torch.tensor([[text[-1] for text in beam] for beam in texts])
        scores = feed(model, token, cache)
        if position in (length // 2, length - 1):
            for row, beam in enumerate(texts):
                whole = padded(model, src[row][None].expand(K, -1), torch.tensor(beam))[:, -1].log_softmax(-1)
                assert torch.allclose(scores[row], whole, rtol=0, atol=1e-10)
        parent = torch.randint(K, (len(src), K), generator=generator)
        if position % 3 < 2:
            parent = parent.clamp(max=1)  # families die out, so that entries are forgotten
        token = torch.randint(3, SIZES["tgt_vocab"], (len(src), K), generator=generator)
        texts = [
            [beam[p] + [t] for p, t in zip(*both)] for beam, both in zip(texts, zip(parent.tolist(), token.tolist()))
        ]
        cache.reorder(parent)
        if position == length // 3:
            stay = torch.randperm(len(src), generator=generator)[:2]
            cache.select(stay)
            src, texts = src[stay], [texts[row] for row in stay]


@torch.no_grad()
def test_what_no_beam_sees_is_forgotten(model):
    """Five beams of one family need the entries of one text, not of five."""
    cache = KVCache(model, ragged([4]), 5, 400)
    for position in range(400):
        feed(model, torch.full((1, 5), 3 + position % 7), cache)
        cache.reorder(torch.zeros(1, 5, dtype=torch.int64))
    assert cache.capacity < 2 * 400 + 2 * 16 * 5 < 5 * 400


@torch.no_grad()
def test_the_kv_cache_has_the_dtype_of_keys_and_values(model):
    """Under autocast the encoder's last norm returns fp32; its keys and values are bf16."""
    narrow = random_model().float()
    with torch.autocast("cpu", torch.bfloat16):
        cache = KVCache(narrow, ragged([4, 2]), 3, 8)
        feed(narrow, torch.full((2, 3), BOS), cache)
    assert {x.dtype for name, x in cache.rows.items() if name[0].endswith(("keys", "values"))} == {torch.bfloat16}
    assert KVCache(model, ragged([4]), 1, 8).dtype == torch.double
    assert KVCache(for_decoding(narrow, "bf16"), ragged([4]), 1, 8).dtype == torch.bfloat16


# ---------------------------------------------------------------------------------------------------------------------
# Greedy and sampled

def slow_greedy(model, src, max_len):
    """One row, the whole target anew for every token: no cache, no batch."""
    ids = [BOS]
    while len(ids) <= max_len and ids[-1] != EOS:
        ids.append(padded(model, src[None], torch.tensor([ids]))[0, -1].argmax().item())
    return ids[1:]


@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_greedy_is_greedy_without_a_cache(seed):
    lengths = [7, 2, 5, 7, 1, 6, 3, 4]
    model, src = random_model(seed), ragged(lengths, seed)
    model.head.weight[EOS] = torch.randn(SIZES["d_model"], generator=torch.Generator().manual_seed(seed)) * 0.4
    for row, length, answer in zip(src, lengths, greedy(model, src, 40)):
        assert answer.ids == slow_greedy(model, row[:length], 40)
        scores = logprob_of(model, row[:length], answer.ids)
        assert answer.logprob == pytest.approx(scores.sum().item(), abs=1e-9)
        assert answer.lowest == pytest.approx(scores.min().item(), abs=1e-9)


@torch.no_grad()
def test_what_does_not_end_is_unfinished_and_whole(model):
    """Greedy and a beam's best; an end that is less probable than going on is still on the beam's list, behind it."""
    never = random_model()
    never.decoder_norm.weight.zero_()
    never.decoder_norm.bias.copy_(-never.head.weight[EOS] * 30)
    src = ragged([5, 4, 5])
    for (answer, *others) in [*([answer] for answer in greedy(never, src, 6)), *beam_search(never, src, 6, 2)]:
        assert len(answer.ids) == 6 and EOS not in answer.ids and not answer.finished
        assert all(other.finished and other.logprob < answer.logprob for other in others)
    for row, answers in zip(src, beam_search(model, src, 6, 3)):
        for answer in answers:
            assert answer.logprob == pytest.approx(
                logprob_of(model, row[row != PAD], answer.ids).sum().item(), abs=1e-9
            )


@torch.no_grad()
def test_everything_stops_at_the_end_token():
    model = random_model()
    model.decoder_norm.weight.zero_()
    model.decoder_norm.bias.copy_(model.head.weight[EOS] * 100)
    for answer, *_ in [
        *([answer] for answer in greedy(model, ragged([5, 5]), 6)),
        *beam_search(model, ragged([5, 5]), 6, 2),
    ]:
        assert answer.ids == [EOS] and answer.finished and answer.logprob == pytest.approx(0, abs=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Graphs

class Recorder(TorchDispatchMode):
    """Replays what a function did as a CUDA graph does: the same operations on the same memory."""

    def __init__(self, function):
        super().__init__()
        self.calls, self.replays = [], 0
        for _ in range(graphs.WARM_UP):
            function()
        with self:
            function()

    def __torch_dispatch__(self, operation, types, arguments, options):
        assert "local_scalar" not in str(operation) and "nonzero" not in str(operation)  # they wait for the device
        result = operation(*arguments, **(options or {}))
        self.calls.append((operation, arguments, options or {}, result))
        return result

    def __call__(self):
        self.replays += 1
        for operation, arguments, options, result in self.calls:
            for old, new in zip(tree_leaves(result), tree_leaves(operation(*arguments, **options))):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def recorders(monkeypatch):
    """On a CPU everything as on a GPU, with recorders for CUDA graphs. Lists them."""
    made = []

    def capture(function):
        made.append(Recorder(function))
        return made[-1]

    monkeypatch.setattr(generate, "uses_graphs", lambda device: True)
    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(generate, "memory_of", lambda device: 10**12)
    return made


def random_uniform(rows, K, max_len):
    return torch.rand(rows, K, max_len, dtype=torch.double, generator=torch.Generator().manual_seed(1))


SEARCHES = {
    "greedy": lambda model, src, max_len: [[answer] for answer in greedy(model, src, max_len)],
    "sample": lambda model, src, max_len: sample(
        model, src, max_len, random_uniform(len(src), 3, max_len), temperature=0.9, top_k=5, top_p=0.9),
    "beam": lambda model, src, max_len: beam_search(model, src, max_len, 3, 0.5)}


@pytest.mark.parametrize("name", SEARCHES)
@torch.no_grad()
def test_a_replayed_step_gives_the_answers_of_the_step_itself(name, request):
    """Rows that end early, caches that grow, batches of other sizes: fixed shapes and late looks change no answer."""
    model = random_model(3)
    model.head.weight[EOS] *= 1.3
    if name == "beam":  # ends are rarer, or no beam would be long
        model.decoder_norm.bias -= 4 * model.head.weight[EOS] / model.head.weight[EOS].square().sum()
    batches = [(ragged([7, 2, 5, 7, 1, 6, 3, 4, 9, 2, 5], 1), 50), (ragged([3, 8], 2), 40), (ragged([6] * 9, 3), 45)]
    plain = [SEARCHES[name](model, *batch) for batch in batches]
    recorders = request.getfixturevalue("recorders")
    for _ in range(2):
        for batch, expected in zip(batches, plain):
            found = SEARCHES[name](model, *batch)
            assert [[x.ids for x in row] for row in found] == [[x.ids for x in row] for row in expected]
            for a, b in zip(itertools.chain(*found), itertools.chain(*expected)):
                assert (a.logprob, a.lowest) == pytest.approx((b.logprob, b.lowest), abs=1e-9)
    assert 2 <= len(recorders) <= 6  # two sizes of the batch, three of the cache; none of them made again
    lengths = [len(x.ids) for x in itertools.chain(*itertools.chain(*plain))]
    assert min(lengths) < 16 < 32 < max(lengths), sorted(lengths)


@torch.no_grad()
def test_learned_positions_end_where_a_padded_source_would_not(recorders):
    """Sources are padded to 32 tokens for the graphs; the model below has positions for 20."""
    model = random_model(src_max_len=20, positions="learned")
    assert greedy(model, ragged([20, 7]), 12) and recorders


@torch.no_grad()
def test_the_beam_of_a_model_of_nan_answers_something():
    model = random_model()
    model.head.weight.fill_(torch.nan)
    for answers in beam_search(model, ragged([4, 3]), 10, 3):
        assert answers and all(math.isnan(answer.logprob) for answer in answers)


@torch.no_grad()
def test_a_graph_is_made_anew_where_the_weights_are_elsewhere(recorders):
    model, src = random_model(), ragged([4, 3])
    greedy(model, src, 20)
    captured = len(recorders)
    model.head.weight.mul_(-1)  # in place, as an optimizer does
    changed = greedy(model, src, 20)
    assert len(recorders) == captured
    model.head.weight = torch.nn.Parameter(model.head.weight.clone())
    assert [x.ids for x in greedy(model, src, 20)] == [x.ids for x in changed] and len(recorders) > captured


@torch.no_grad()
def test_without_memory_for_graphs_the_steps_run_as_they_are(recorders, monkeypatch):
    model, src = random_model(), ragged([4, 3])
    expected = greedy(model, src, 20)
    recorders.clear()
    monkeypatch.setattr(generate, "memory_of", lambda device: 0)
    assert [x.ids for x in greedy(model, src, 20)] == [x.ids for x in expected] and not recorders


@torch.no_grad()
def test_a_graph_that_cannot_be_captured_is_said_once_and_the_steps_run_as_they_are(recorders, monkeypatch, capsys):
    model, src = random_model(), ragged([4, 3])
    expected = greedy(model, src, 20)

    def half_captured(step):
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")
    monkeypatch.setattr(graphs, "capture", half_captured)
    monkeypatch.setattr(graphs, "failed", [])
    generate._captured.clear()
    for _ in range(2):
        assert [x.ids for x in greedy(model, src, 20)] == [x.ids for x in expected]
    assert capsys.readouterr().err == ("decoding without CUDA graphs, which is slower: operation not permitted when "
                                       "stream is capturing\n")


# ---------------------------------------------------------------------------------------------------------------------
# Precision

def test_bf16_on_a_cpu_without_units_for_it_is_said_to_be_slow(monkeypatch, capsys):
    for has_units, said in ((True, ""), (False, "dtype: this cpu has no units for bf16; fp32 is faster\n")):
        monkeypatch.setattr(generate, "has_bf16", lambda device: has_units)
        for_decoding(random_model(), "bf16")
        assert capsys.readouterr().err == said
        cache = KVCache(for_decoding(random_model(), "int8"), ragged([4]), 1, 8)
        assert cache.dtype == (torch.bfloat16 if has_units else torch.float32)


@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_on_long_rows_fp32_autocast_and_the_decoding_copy_give_the_same_answers(norm):
    """
    800 source tokens, 1,700 target tokens; each token has a successor of which the model is sure. The copy's
    log-probabilities are at least as near to those of fp32 as those of autocast are.
    """
    model = random_model(norm=norm, src_max_len=800, tgt_max_len=1701).float()
    for name, weight in model.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            weight.mul_(0.3)
    model.head.weight.copy_(0.5 * model.tgt_embedding.weight.roll(1, 0))            # sure of the next token: token + 1
    src, tgt = random_ids(2, 800, SIZES["src_vocab"]), random_ids(2, 1700, SIZES["tgt_vocab"])
    exact = padded(model, src, tgt).log_softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = padded(model, src, tgt).float().log_softmax(-1)
    copy = padded(for_decoding(model, "bf16"), src, tgt).float().log_softmax(-1)
    assert torch.equal(exact.argmax(-1), copy.argmax(-1)) and torch.equal(exact.argmax(-1), autocast.argmax(-1))
    assert len(exact.argmax(-1).unique()) == SIZES["tgt_vocab"] - 3
    assert (copy - exact).abs().mean() < 1.1 * (autocast - exact).abs().mean()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("packed", [True, False])
def test_only_the_products_of_the_layers_are_in_low_precision(monkeypatch, norm, packed):
    """The residual stream, norms, positions and the head stay in fp32."""
    if not packed:                                                                  # as on a GPU
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    copy, low = for_decoding(random_model(norm=norm), "bf16"), set()

    def note(name):
        return lambda module, inputs, output: low.add(name) if output.dtype != torch.float32 else None

    for name, module in copy.named_modules():
        if not list(module.children()):
            module.register_forward_hook(note(name.split(".")[-1]))
    logits = padded(copy, ragged([5, 3]), random_ids(2, 4, SIZES["tgt_vocab"]))
    assert logits.dtype == copy.positional_encoding("decoder", 9).dtype == torch.float32
    assert low - {"dropout"} == {"qkv", "out", "q", "kv", "up", "down"}


@torch.no_grad()
def test_samples_follow_the_distribution_of_the_model(small):
    """Each answer's share of 20,000 samples is its probability, to four standard deviations of counting."""
    src, N, max_len = ragged([4]), 20000, 3
    uniform = torch.rand(N // 50, 50, max_len, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    counts = {}
    for answer in itertools.chain(*sample(small, src.expand(N // 50, -1), max_len, uniform)):
        counts[tuple(answer.ids)] = counts.get(tuple(answer.ids), 0) + 1
        assert answer.finished or len(answer.ids) == max_len
    for logprob, ids in every_answer(small, src[0], max_len)[:40]:
        p = math.exp(logprob)
        assert abs(counts.get(tuple(ids), 0) - N * p) < 4 * math.sqrt(N * p) + 1


@torch.no_grad()
@pytest.mark.parametrize("K", [3, 19], ids=["few", "in groups"])
def test_a_sample_depends_on_its_own_random_numbers_only(model, K):
    src = ragged([6, 3, 8, 5])
    uniform = torch.rand(4, K, 20, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    together = sample(model, src, 20, uniform)
    assert len({tuple(answer.ids) for answers in together for answer in answers}) > 8
    for row in range(4):
        assert len(together[row]) == K
        for k in range(K):
            (alone,), = sample(model, src[row:row + 1], 20, uniform[row:row + 1, k:k + 1])
            assert alone.ids == together[row][k].ids and alone.logprob == pytest.approx(
                together[row][k].logprob, abs=1e-9
            )


@given(st.lists(st.floats(-8, 0), min_size=2, max_size=9), st.integers(0, 9), st.floats(0.05, 1), st.floats(0.3, 3),
       st.floats(0, 1, exclude_max=True))
@settings(max_examples=200)
def test_drawn_tokens_are_in_the_nucleus_with_the_right_shares(logits, top_k, top_p, temperature, u):
    logprobs = torch.tensor(logits, dtype=torch.double).log_softmax(-1)
    shares = sorted(((logprobs / temperature).softmax(-1).tolist()), reverse=True)[:top_k or None]
    nucleus, whole = [], sum(shares)
    while not nucleus or sum(nucleus) < top_p * whole - 1e-12:                      # the fewest with the share top_p
        nucleus.append(shares[len(nucleus)])
    n = 4000
    tokens = draw(logprobs.expand(n, -1), (torch.arange(n, dtype=torch.double) + u) / n, temperature, top_k, top_p)
    found = sorted((tokens.bincount(minlength=len(logits)) / n).tolist(), reverse=True)
    if all(abs(sum(nucleus[:k]) - top_p * whole) > 1e-9 for k in range(len(nucleus) + 1)):
        expected = [share / sum(nucleus) for share in nucleus] + [0.0] * (len(logits) - len(nucleus))
        assert found == pytest.approx(expected, abs=1.01 / n)


# ---------------------------------------------------------------------------------------------------------------------
# Beam search

@torch.no_grad()
def test_probabilities_of_all_answers_sum_to_one(small):
    """All that end within three tokens, and all that do not."""
    src = ragged([4])
    ended = sum(math.exp(logprob) for logprob, _ in every_answer(small, src[0], 3))
    prefixes = torch.tensor([[BOS, *body] for body in itertools.product([t for t in range(6) if t != EOS], repeat=3)])
    scores = padded(small, src.expand(len(prefixes), -1), prefixes).log_softmax(-1)
    going = scores[:, :3].gather(2, prefixes[:, 1:, None])[..., 0].sum(1).exp().sum().item()
    assert ended + going == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
@torch.no_grad()
def test_a_full_beam_is_exhaustive_search(small, seed, length_penalty):
    """With room for all 5^3 beginnings nothing is lost: the beam finds the best answers of all, in their order."""
    src, max_len = ragged([4, 2, 3], seed), 4
    for row, answers in zip(src, beam_search(small, src, max_len, 125, length_penalty)):
        every = every_answer(small, row[row != PAD], max_len)
        every = sorted(((p / len(ids) ** length_penalty, ids) for p, ids in every), reverse=True)[:125]
        answers = [answer for answer in answers if answer.finished]
        assert [answer.ids for answer in answers] == [ids for _, ids in every]
        scores = [answer.logprob / len(answer.ids) ** length_penalty for answer in answers]
        assert scores == pytest.approx([score for score, _ in every], abs=1e-10)


def slow_beam_search(model, src, max_len, K):
    """One row, one hypothesis at a time, no cache: the definition."""
    going, ended = [(0.0, [])], []
    for _ in range(max_len):
        following = []
        for logprob, ids in going:
            scores = padded(model, src[None], torch.tensor([[BOS] + ids]))[0, -1].log_softmax(-1).tolist()
            ended.append((logprob + scores[EOS], ids + [EOS]))
            following += [(logprob + score, ids + [token]) for token, score in enumerate(scores) if token != EOS]
        ended = sorted(ended, reverse=True)[:K]
        going = sorted(following, reverse=True)[:K]
        if len(ended) == K and ended[-1][0] >= going[0][0]:
            return ended
    return going[:1] + ended if going[0] > ended[0] else ended


@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_beam_search_is_its_definition(K, seed):
    lengths = [7, 2, 5, 1, 4]
    model, src = random_model(seed), ragged(lengths, seed)
    model.head.weight[EOS] *= 1.5
    for row, length, answers in zip(src, lengths, beam_search(model, src, 12, K)):
        expected = slow_beam_search(model, row[:length], 12, K)
        assert [answer.ids for answer in answers] == [ids for _, ids in expected]
        assert [answer.logprob for answer in answers] == pytest.approx([p for p, _ in expected], abs=1e-9)
        for answer in answers:
            scores = logprob_of(model, row[:length], answer.ids)
            assert answer.logprob == pytest.approx(scores.sum().item(), abs=1e-9)
            assert answer.lowest == pytest.approx(scores.min().item(), abs=1e-9)


@torch.no_grad()
def test_a_beam_of_a_batch_is_the_beam_of_its_rows_in_any_order():
    lengths = [7, 2, 5, 1, 4, 6]
    model, src = random_model(9), ragged(lengths)
    alone = [beam_search(model, row[None, :length], 15, 4)[0] for row, length in zip(src, lengths)]
    order = torch.randperm(len(lengths))
    for row, answers in zip(order, beam_search(model, src[order], 15, 4)):
        assert [answer.ids for answer in answers] == [answer.ids for answer in alone[row]]
        assert [answer.logprob for answer in answers] == pytest.approx(
            [answer.logprob for answer in alone[row]], abs=1e-9
        )
