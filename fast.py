"""
The same model, its matrices laid out for the decode step.

A decode step multiplies a few rows by every weight of the decoder, so its time is that of reading the weights. On the CPU they are
laid out once as oneDNN's kernels read them, in fp32 or bf16, or rounded to int8, a quarter of the bytes.
"""
import copy
import warnings

import torch
import torch.nn as nn

from files import InputError
from hardware import find_dtype


class PackedLinear(nn.Module):
    """nn.Linear by oneDNN, with the weight in the blocks that its kernel for few rows wants; the same sums in another order."""

    def __init__(self, linear):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 16)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x):
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """
    nn.Linear with int8 weights, one scale for each output, and activations rounded to 8 bits, one scale for all rows of a call.

    About 1% of noise in each product. The scale makes a row's answer depend on its batch, within that noise. The keys and values of
    the cache are bf16 then, half the bytes at a third of that noise.
    """

    def __init__(self, linear):
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).double().clamp(min=1e-12) / 127
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "deprecated": the pinned torch has it, and no faster kernel for few rows
            rounded = torch.quantize_per_channel(weight, scale, torch.zeros_like(scale, dtype=torch.int64), 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None if linear.bias is None else linear.bias.detach())

    def forward(self, x):
        return torch.ops.quantized.linear_dynamic(x, self.packed, False)


def for_decoding(model, dtype="auto"):
    """A copy of the model to decode with. dtype: as in training, or "int8" (CPU only). InputError where the device cannot do it."""
    device = next(model.parameters()).device
    if dtype == "int8" and (device.type != "cpu" or "x86" not in torch.backends.quantized.supported_engines):
        raise InputError(f"dtype: int8 needs an x86 CPU, the device is {device}")
    if dtype == "fp16" and device.type == "cpu":
        raise InputError("dtype: fp16 needs a GPU; on a CPU there are fp32, bf16 and int8")
    activations = torch.float32 if dtype == "int8" else find_dtype(dtype, device)
    model = copy.deepcopy(model).to(activations).eval()
    if device.type == "cpu" and (dtype == "int8" or torch.backends.mkldnn.is_available()):
        kind = Int8Linear if dtype == "int8" else PackedLinear
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, kind(child))
        if dtype == "int8":
            model.cache_dtype = torch.bfloat16
    return model
