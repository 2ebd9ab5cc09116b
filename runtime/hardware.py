"""What a device can do and how well training uses it: precision, floating-point operations, memory."""
import resource

import torch

from runtime.files import InputError

# Dense matrix products in bf16 or fp16 with fp32 sums, FLOP/s, from NVIDIA's data sheets of each device (where a sheet quotes
# structured sparsity, half of it). First entry whose words are all in the device's name counts.
PEAK = (
    ("MIG", None),  # a part of a device
    ("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12), ("H200 NVL", 835e12), ("H200", 989e12), ("GH200", 989e12), ("B200", 2250e12),
    ("A100", 312e12), ("A10G", 70e12), ("A10", 125e12), ("A40", 150e12), ("L40S", 362e12), ("L4", 121e12), ("V100", 125e12), ("T4", 65e12),
)


def find_device(name):
    """torch.device of the setting `device`; "auto" is cuda where there is one. InputError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise InputError(f"device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from None
    return device


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

    def ffn(side, layer):
        """Weights of the feed-forward network: a SineKAN has kan_grid of them on an edge, the MLP with a gate two matrices to its hidden width."""
        widths = config.ffn_widths(side, layer)
        edges = [a * b for a, b in zip(widths, widths[1:])]
        if config.has_kan(side, layer):
            return config.kan_grid * sum(edges)
        return sum(edges) + (config.activation == "swiglu") * edges[0]

    e, d = config.width("encoder"), config.width("decoder")
    on_sources = sum(4 * e * e + ffn("encoder", layer) for layer in range(config.encoder_layers)) + config.decoder_layers * 2 * e * d  # keys, values
    on_targets = sum(4 * d * d + 2 * d * d + ffn("decoder", layer) for layer in range(config.decoder_layers))  # with q and out of cross-attention
    on_targets += config.end_width * config.tgt_vocab
    pairs = config.encoder_layers * e * src ** 2 + config.decoder_layers * d * (tgt * (tgt + 1) / 2 + src * tgt)
    return float((6 * on_sources * src + 6 * on_targets * tgt + 12 * pairs).sum())


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
