"""What a device can do and how well training uses it: precision, floating-point operations, memory."""
import os
import re
import resource
from pathlib import Path

# Large tensors on huge pages where Linux has them on request: a decode step reads all weights and keys, and spends a
# tenth of its time on looking up small pages. torch reads the variable when it allocates its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from runtime.files import InputError

# Peak FLOP/s of dense matrix products in bf16 or fp16 with fp32 sums, from NVIDIA's data sheets (half the number where
# a sheet quotes structured sparsity). The first entry counts whose words are all in the device's name.
PEAK = (
    ("MIG", None),  # a part of a device
    ("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12), ("H200 NVL", 835e12), ("H200", 989e12),
    ("GH200", 989e12), ("B200", 2250e12), ("A100", 312e12), ("A10G", 70e12), ("A10", 125e12), ("A40", 150e12),
    ("L40S", 362e12), ("L4", 121e12), ("V100", 125e12), ("T4", 65e12),
)


def find_device(name):
    """
    torch.device of the setting `device`; "auto" is cuda where there is one. InputError if it cannot be used.

    A GPU that is named by its number, such as "cuda:1", becomes the current device of this process.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"device: got {name!r}, wanted auto, cpu, cuda or a GPU such as cuda:1")
        torch.zeros(1, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise InputError(f"device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from None
    return device


def memory_of(device):
    """Bytes of memory of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_name(device):
    """What the device is called, for tables: the GPU's name, or the CPU's, its bf16 units and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        names = []
    units = "bf16 units" if has_bf16(device) else "no bf16 units"
    return f"{names[0] if names else 'CPU'} ({units}), {torch.get_num_threads()} threads"


def find_dtype(name, device):
    """torch.dtype of the setting `dtype`, that of matrix products. Weights and their updates are always fp32."""
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if has_bf16(device) else torch.float16
    known = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if name not in known:
        raise InputError(f"dtype: got {name!r}, wanted auto, {', '.join(known)}, or int8 to decode on a CPU")
    return known[name]


def has_bf16(device):
    """Whether the device has units for products in bf16. A CPU without them takes longer for these than for fp32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.cuda.is_bf16_supported(including_emulation=False)


def training_flops(config, src, tgt):
    """
    FLOPs of the matrix products of one forward and backward pass over rows of these lengths, without padding.

    config: a ModelConfig. src, tgt: (rows,), tokens of each row. As in PaLM (Chowdhery et al. 2022, arXiv 2204.02311,
    app. B): 6 for each token and each weight that it is multiplied by (2 forward, 4 backward; embedding look-ups are
    free); and in each layer 12 d for each pair of a query and a key that the mask allows. Recomputed activations do not
    count.
    """
    src, tgt = src.astype(float), tgt.astype(float)

    def mlp(width, hidden):
        return (3 if config.activation == "swiglu" else 2) * width * hidden  # two first matrices with a gate

    def ffn(side, layer):
        """Weights of the feed-forward network: kan_grid on each edge of a SineKAN."""
        widths = config.ffn_widths(side, layer)
        if config.has_kan(side, layer):
            return config.kan_grid * sum(a * b for a, b in zip(widths, widths[1:]))
        return mlp(*widths[:2])

    e, d = config.width("encoder"), config.width("decoder")
    # self-attention has four matrices; of cross-attention k and v are applied to its keys, q and output to targets
    # a recurrence has no pairs. A wave has c = e / 8 channels and 14 units, in two directions: inputs 2 e c, output
    # 2 * 14 e c, and a kernel of c * 3 c at every unit
    mixing = {"attention": 4, "ssm": 4, "wave": (2 + 28) / 8 + 2 * 14 * 3 / 64}[config.encoder] * e * e
    source_pairs = src ** 2 if config.encoder == "attention" else 0
    on_sources = sum(mixing + ffn("encoder", layer) for layer in range(config.encoder_layers))
    on_keys = config.decoder_layers * 2 * e * d
    on_targets = sum(4 * d * d + 2 * d * d + ffn("decoder", layer) for layer in range(config.decoder_layers))
    on_targets += config.end_width * config.tgt_vocab
    keys, pairs = src, config.encoder_layers * e * source_pairs  # the decoder's keys: source tokens, or latent ones
    if config.n_latent:
        keys = config.n_latent
        on_sources += 2 * e * e
        on_keys += 2 * e * e + mlp(e, config.encoder_d_ff or config.d_ff)
        pairs = pairs + e * src * keys
    pairs = pairs + config.decoder_layers * d * (tgt * (tgt + 1) / 2 + keys * tgt)
    return float((6 * (on_sources * src + on_keys * keys + on_targets * tgt) + 12 * pairs).sum())


def peak_flops(device, dtype):
    """Peak FLOP/s of the device in this dtype, from PEAK; None where that is not known."""
    if device.type != "cuda" or dtype == torch.float32:
        return None
    words = set(torch.cuda.get_device_name(device).replace("-", " ").split())  # "NVIDIA A100-SXM4-80GB"
    return next((peak for name, peak in PEAK if words.issuperset(name.split())), None)


def peak_memory(device):
    """Peak memory so far, in GB (10^9 bytes): of the tensors on the GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def read_later(tensor):
    """Copy a tensor to the CPU while the device works on: returns a function that waits for the copy and returns it."""
    if tensor.device.type != "cuda":
        return tensor.cpu
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def read():
        copied.synchronize()
        return copy
    return read
