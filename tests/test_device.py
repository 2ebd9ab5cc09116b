"""The device: which one is current; a training step reads no value from it, as that would wait for its kernels."""
import numpy as np
import pytest
import torch

import train
from batches import collate, mixed_batches, room_for, to_device
from bench.train import VOCABULARY, random_rows
from model import ModelConfig, Transformer, compile_model
from runtime.files import InputError
from runtime.hardware import find_device, read_later
from tokenizer import PAD
from train import decide_compile, judge, step_if, token_losses, update_average

SMALL = dict(d_model=16, heads=2, encoder_layers=1, decoder_layers=1, d_ff=16)


def model_of(attention="auto", checkpoint_layers=False, dropout=0.1, **architecture):
    torch.manual_seed(0)
    config = ModelConfig(VOCABULARY, VOCABULARY, 64, 65, dropout=dropout, **SMALL, **architecture)
    return Transformer(config, attention, checkpoint_layers)


def test_a_gpu_that_is_named_becomes_the_current_one(monkeypatch):
    """Kernels that are told no device, and questions about the properties of the device, then go to the right one."""
    chosen = []
    monkeypatch.setattr(torch, "zeros", lambda size, device: None)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("cpu", "cuda", "cuda:1"):
        assert find_device(name) == torch.device(name)
    assert chosen == [torch.device("cuda:1")]


@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_a_training_step_reads_no_value_from_the_device(checkpoint_layers):
    """Tensors on the meta device have shapes but no values: item(), tolist() and nonzero() are errors there."""
    device, packed = torch.device("meta"), random_rows(64, 0)
    batch = to_device(collate(packed, np.arange(5), room_for(packed, 600)), device)
    model = model_of("sdpa", checkpoint_layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=False)
    average = {name: weight.clone() for name, weight in model.state_dict().items()}
    losses = token_losses(model(batch.src, batch.sources, batch.tgt, batch.targets), batch.truth)  # (M,)
    losses.sum().backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    facts = torch.stack([norm, losses.detach().sum()])[None].double()
    kind_tokens, kind_loss = (torch.ones(1, dtype=torch.double, device=device) for _ in range(2))
    good, figures = judge(facts, kind_tokens, kind_loss, 10.0, False)
    optimizer.found_inf = good
    update_average(average, model, 0.9, 3, good)
    assert losses.shape == (room_for(packed, 600).tgt,) and good.shape == () and figures.shape == (6,)
    for asks in (good.item, losses.tolist, losses.nonzero, lambda: step_if(good, torch.optim.SGD(model.parameters()))):
        with pytest.raises((RuntimeError, NotImplementedError)):
            asks()


def test_adamw_looks_at_the_verdict_itself():
    """The fused kernel leaves weights, moments and their count alone where the step is bad."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    weight.grad = torch.full((3,), torch.nan)
    step_if(torch.tensor(False), optimizer)
    state = optimizer.state[weight]
    assert torch.equal(weight, torch.ones(3)) and not state["exp_avg"].any() and state["step"] == 0
    weight.grad = torch.ones(3)
    step_if(torch.tensor(True), optimizer)
    assert (weight < 1).all() and state["step"] == 1


def test_padding_to_one_shape_changes_no_loss_and_no_gradient():
    packed, model = random_rows(64, 1), model_of(dropout=0)
    room = room_for(packed, 1500)
    for samples in (*mixed_batches(packed, 1500, 0)[:2], np.array([3])):
        results = []
        for batch in (collate(packed, samples), collate(packed, samples, room)):
            losses = token_losses(model(batch.src, batch.sources, batch.tgt, batch.targets), batch.truth)
            model.zero_grad()
            losses.sum().backward()
            results.append((losses.detach(), [weight.grad.clone() for weight in model.parameters()]))
        (plain, of_plain), (filled, of_filled) = results
        real = torch.arange(room.tgt) < len(plain)
        assert filled.shape == (room.tgt,) and (filled[~real] == 0).all()
        assert torch.allclose(filled[real], plain, atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(of_plain, of_filled))


def test_a_filled_batch_has_the_shapes_of_its_room():
    packed = random_rows(64, 2)
    room = room_for(packed, 1000)
    batches = mixed_batches(packed, 1000, 5)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(packed.row)))
    for samples in (*batches, batches[0][:1]):
        batch = collate(packed, samples, room)
        shapes = [(rows.start.shape, rows.row.shape, rows.position.shape, rows.longest) for rows in batch[1::3]]
        assert shapes == [((room.rows + 1,), (room.src,), (room.src,), room.longest_src),
                          ((room.rows + 1,), (room.tgt,), (room.tgt,), room.longest_tgt)]
        for rows, ids in (batch.sources, batch.src), (batch.targets, batch.truth):
            assert rows.start[-1] == len(ids) and rows.start.diff().max() <= rows.longest
            assert (rows.row < len(samples)).sum() == (ids != PAD).sum()


@pytest.mark.parametrize("extra", [{}, {"positions": "sinusoidal"}, {"positions": "learned", "norm": "pre"}])
def test_torch_compile_makes_one_graph_for_an_epoch_of_ragged_rows(extra):
    packed, model, counters = random_rows(64, 0), model_of(**extra), torch._dynamo.utils.counters
    room = room_for(packed, 6000)
    torch._dynamo.reset()
    counters.clear()
    compiled = compile_model(model, backend="aot_eager")
    for samples in mixed_batches(packed, 6000, 0):
        batch = collate(packed, samples, room)
        compiled(batch.src, batch.sources, batch.tgt, batch.targets).sum().backward()
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def test_compile_is_decided_by_the_device_and_the_length_of_the_run(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(train, "has_triton", lambda: True)
    cases = (("auto", gpu, True, 5000, 0.0), ("auto", gpu, True, 100, 0.0), ("auto", gpu, True, 5000, 1.0),
             ("auto", cpu, True, 5000, 0.0), ("on", cpu, True, 1, 0.0), ("off", gpu, True, 5000, 0.0),
             ("auto", gpu, False, 5000, 0.0))
    assert [decide_compile(*case)[0] for case in cases] == [True, False, False, False, True, False, False]
    with pytest.raises(InputError, match="^compile: these settings pad rows to the longest"):
        decide_compile("on", gpu, False, 5000, 0.0)


def test_a_cpu_tensor_is_read_at_once():
    assert read_later(torch.tensor([1.0, 2.0]))().tolist() == [1.0, 2.0]
