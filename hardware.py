"""What a device can do and how well training uses it: precision, floating-point operations, memory."""
import resource

import torch

from files import InputError

# Dense matrix products in bf16 or fp16 with fp32 sums, FLOP/s, from NVIDIA's data sheets of each device (where a sheet quotes
# structured sparsity, half of it). First entry whose words are all in the device's name counts.
PEAK = (
    ("MIG", None),  # a part of a device
    ("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12), ("H200 NVL", 835e12), ("H200", 989e12), ("GH200", 989e12), ("B200", 2250e12),
    ("A100", 312e12), ("A10G", 70e12), ("A10", 125e12), ("A40", 150e12), ("L40S", 362e12), ("L4", 121e12), ("V100", 125e12), ("T4", 65e12),
)


def find_dtype(name, device):
    """torch.dtype of the setting `dtype`: what matrix products are computed in; weights and their updates are always fp32."""
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    known = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if name not in known:
        raise InputError(f"dtype: got {name!r}, wanted auto, {', '.join(known)}, or int8 to decode on a CPU")
    return known[name]


def training_flops(config, src, tgt):
    """
    FLOPs of the matrix products of one forward and backward pass over rows of these lengths, padding not counted.

    config: a ModelConfig. src, tgt: arrays (rows,), tokens each. As in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, app. B): 6 for each
    weight that a token meets (2 forward, 4 backward; table look-ups are free), and for attention 12 d for each pair of a query and a key
    that it may see, in each layer. Recomputed activations do not count.
    """
    src, tgt = src.astype(float), tgt.astype(float)
    d, mlp = config.d_model, 2 * config.d_model * config.d_ff
    encoder = config.encoder_layers * (6 * (4 * d * d + mlp) * src + 12 * d * src ** 2)
    on_targets = 6 * (4 * d * d + 2 * d * d + mlp) * tgt  # self-attention, q and out of cross-attention, MLP
    decoder = config.decoder_layers * (on_targets + 6 * 2 * d * d * src + 12 * d * (tgt * (tgt + 1) / 2 + src * tgt))
    return float((encoder + decoder + 6 * d * config.tgt_vocab * tgt).sum())


def peak_flops(device, dtype):
    """FLOP/s that the device could reach in this dtype; None where that is not known."""
    if device.type != "cuda" or dtype == torch.float32:
        return None
    words = set(torch.cuda.get_device_name(device).replace("-", " ").split())  # "NVIDIA A100-SXM4-80GB"
    return next((peak for name, peak in PEAK if words.issuperset(name.split())), None)


def peak_memory(device):
    """Largest memory so far, in GB (10^9 bytes): tensors on the GPU, or the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB
