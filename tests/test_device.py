"""The device: which one is current; a training step reads no value from it, as that would wait for its kernels."""
import numpy as np
import pytest
import torch

from batches import collate, to_device
from bench.train import VOCABULARY, random_rows
from model import ModelConfig, Transformer
from runtime.hardware import find_device


def test_a_gpu_that_is_named_becomes_the_current_one(monkeypatch):
    """Kernels that are told no device, and questions about the properties of the device, then go to the right one."""
    chosen = []
    monkeypatch.setattr(torch, "zeros", lambda size, device: None)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("cpu", "cuda", "cuda:1"):
        assert find_device(name) == torch.device(name)
    assert chosen == [torch.device("cuda:1")]


@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_forward_backward_and_optimizer_read_no_value_from_the_device(monkeypatch, checkpoint_layers):
    """Tensors on the meta device have shapes but no values: item(), tolist() and nonzero() are errors there."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # attention as on a GPU, not row after row
    batch = to_device(collate(random_rows(16, 0), np.arange(5)), torch.device("meta"))
    config = ModelConfig(VOCABULARY, VOCABULARY, 16, 17, d_model=16, heads=2, encoder_layers=1, decoder_layers=1,
                         d_ff=16, dropout=0.1)
    model = Transformer(config, "sdpa", checkpoint_layers).to("meta")
    optimizer = torch.optim.AdamW(model.parameters())
    logits = model(batch.src, batch.sources, batch.tgt, batch.targets)  # (M, V)
    loss = torch.nn.functional.cross_entropy(logits, batch.truth)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert logits.shape == (len(batch.truth), VOCABULARY) and norm.shape == loss.shape == ()
    with pytest.raises(RuntimeError):
        loss.item()
