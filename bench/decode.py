"""
Decoding beside Hugging Face transformers (BART) and CTranslate2: same shape of weights, same threads, same run.

Every model has random weights and writes exactly `NEW` tokens for each of `ROWS` sources of `SOURCE` tokens: all
do the same work. Rounds are interleaved, and a ratio is the median of those of its rounds. `bench_gpu` is the same on a
GPU, for 64 and 512 rows and beside Hugging Face only.
"""
import importlib.util
import os
import statistics
import tempfile
import time

import numpy as np
import torch

from generate import beam_search, for_decoding, greedy
from model import ModelConfig, Transformer
from runtime.files import InputError
from runtime.hardware import device_name, has_bf16
from tokenizer import BOS, EOS, PAD

ROWS, SOURCE, NEW, BEAMS, ROUNDS = 16, 256, 128, 5, 3
SHAPE = dict(d_model=512, heads=8, encoder_layers=3, decoder_layers=3, d_ff=2048)
VOCABULARY = 1000


def our_model(device="cpu"):
    model = Transformer(ModelConfig(VOCABULARY, VOCABULARY, 1024, 1024, dropout=0.0, **SHAPE)).eval()
    model.head = torch.nn.Linear(SHAPE["d_model"], VOCABULARY)
    with torch.no_grad():
        model.head.bias.zero_()[EOS] = -1e4  # no answer ends
    return model.to(device)


def hugging_face(src, dtype=torch.float32):
    """{"greedy" or "beam": a function that writes NEW tokens for every row} for BART, on the device of src."""
    import transformers
    config = transformers.BartConfig(
        vocab_size=VOCABULARY, d_model=SHAPE["d_model"], max_position_embeddings=1024, activation_function="gelu",
        encoder_layers=SHAPE["encoder_layers"], decoder_layers=SHAPE["decoder_layers"],
        encoder_attention_heads=SHAPE["heads"], decoder_attention_heads=SHAPE["heads"],
        encoder_ffn_dim=SHAPE["d_ff"], decoder_ffn_dim=SHAPE["d_ff"],
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, decoder_start_token_id=BOS, forced_eos_token_id=None)
    model = transformers.BartForConditionalGeneration(config).eval().to(src.device, dtype)
    mask = torch.ones_like(src)

    def write(beams):
        with torch.inference_mode():
            return model.generate(input_ids=src, attention_mask=mask, num_beams=beams, do_sample=False,
                                  min_new_tokens=NEW, max_new_tokens=NEW)

    return {"greedy": lambda: write(1), "beam": lambda: write(BEAMS)}


def ctranslate2_model(folder, compute_type, src, threads):
    """The same for CTranslate2; its model is written into the folder with random weights of our shape."""
    import ctranslate2
    from ctranslate2.specs import Activation, TransformerSpec
    generator = np.random.default_rng(0)
    d, ff = SHAPE["d_model"], SHAPE["d_ff"]

    def fill(spec, rows, columns):
        spec.weight = (generator.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)
        spec.bias = np.zeros(rows, np.float32)

    def norm(spec):
        spec.gamma, spec.beta = np.ones(d, np.float32), np.zeros(d, np.float32)

    layers = SHAPE["encoder_layers"], SHAPE["decoder_layers"]
    spec = TransformerSpec.from_config(layers, SHAPE["heads"], pre_norm=True, activation=Activation.GELU)
    position = np.arange(1024)[:, None] / 10000 ** (np.arange(d // 2) / (d // 2))
    encodings = np.concatenate([np.sin(position), np.cos(position)], axis=1).astype(np.float32)
    for side, embeddings in ((spec.encoder, spec.encoder.embeddings[0]), (spec.decoder, spec.decoder.embeddings)):
        embeddings.weight = generator.standard_normal((VOCABULARY, d)).astype(np.float32)
        side.position_encodings.encodings = encodings
        norm(side.layer_norm)
        for layer in side.layer:
            attentions = [(layer.self_attention, (3 * d, d))]
            if side is spec.decoder:
                attentions.append((layer.attention, (d, 2 * d, d)))
            for attention, outputs in attentions:
                norm(attention.layer_norm)
                for linear, rows in zip(attention.linear, outputs, strict=True):
                    fill(linear, rows, d)
            norm(layer.ffn.layer_norm)
            fill(layer.ffn.linear_0, ff, d)
            fill(layer.ffn.linear_1, d, ff)
    fill(spec.decoder.projection, VOCABULARY, d)
    tokens = ["<pad>", "<s>", "</s>", "<unk>"] + [f"t{k}" for k in range(4, VOCABULARY)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    os.makedirs(folder)
    spec.validate()
    spec.optimize(quantization=None)
    spec.save(folder)
    translator = ctranslate2.Translator(folder, device="cpu", compute_type=compute_type, inter_threads=1,
                                        intra_threads=threads)
    source = [[tokens[k] for k in row] for row in src.tolist()]

    def write(beams):
        results = translator.translate_batch(source, beam_size=beams, num_hypotheses=beams,
                                             min_decoding_length=NEW, max_decoding_length=NEW)
        assert all(len(result.hypotheses[0]) == NEW for result in results)

    return {"greedy": lambda: write(1), "beam": lambda: write(BEAMS)}


def ours(dtype, src):
    model = for_decoding(our_model(src.device), dtype)
    return {"greedy": lambda: greedy(model, src, NEW), "beam": lambda: beam_search(model, src, NEW, BEAMS)}


def measure(subjects, searches, rows, rounds):
    """
    {subject: {search: new tokens per second of each round}}, the subjects in turn. subjects: {name: {search: function}}
    """
    speeds = {name: {search: [] for search in searches} for name in subjects}
    for search in searches:
        for number in range(rounds + 1):
            for name, functions in subjects.items():
                if number == 0 and search == "beam" and "HF" in name:
                    continue  # its warm-up takes longer than everything else
                started = time.perf_counter()
                functions[search]()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if number:
                    speeds[name][search].append(rows * NEW / (time.perf_counter() - started))
    return speeds


def print_table(speeds, peer_of):
    """A line for each subject, with how many times as fast its peer of this project is: the median of the rounds."""
    print(f"{'':18}" + "".join(f"{name:>10}{'ours/it':>9}" for name in ("greedy", f"beam {BEAMS}")))
    for name, both in speeds.items():
        cells = []
        for search, speed in both.items():
            ratio = statistics.median(a / b for a, b in zip(speeds[peer_of(name)][search], speed))
            cells.append(f"{statistics.median(speed):10,.0f}{ratio:9.2f}")
        print(f"{name:18}" + "".join(cells), flush=True)


def bench_decode():
    for package in ("transformers", "ctranslate2"):
        if not importlib.util.find_spec(package):
            raise InputError(f"{package} is not installed; pip install -r requirements-bench.txt")
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    src = torch.randint(4, VOCABULARY, (ROWS, SOURCE))
    where = device_name(torch.device("cpu"))
    print(f"decoding on {where}: {ROWS} rows of {SOURCE} source tokens, {NEW} new tokens each, {SHAPE}; "
          f"new tokens/s, median of {ROUNDS} rounds")
    with tempfile.TemporaryDirectory() as folder:
        subjects = {"ours fp32": ours("fp32", src), "ours bf16": ours("bf16", src), "ours int8": ours("int8", src),
                    "HF BART": hugging_face(src),
                    "CTranslate2 fp32": ctranslate2_model(os.path.join(folder, "fp32"), "float32", src, threads),
                    "CTranslate2 int8": ctranslate2_model(os.path.join(folder, "int8"), "int8", src, threads)}
        speeds = measure(subjects, ("greedy", "beam"), ROWS, ROUNDS)
    print_table(speeds, lambda name: f"ours {name[-4:]}" if name[-4:] in ("int8", "bf16") else "ours fp32")


def bench_gpu(device, row_counts=(64, 512), rounds=ROUNDS, peer=True):
    """
    Print new tokens/s in bf16, greedy and beam search, beside Hugging Face's BART (peer) on the same device. The first
    call of each, which captures the CUDA graphs, is not counted; BART's beam search has none.
    """
    torch.manual_seed(0)
    dtype = torch.bfloat16 if has_bf16(torch.device(device)) else torch.float32
    name = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    for rows in row_counts:
        src = torch.randint(4, VOCABULARY, (rows, SOURCE), device=device)
        print(f"decoding on {device_name(torch.device(device))}: {rows} rows of {SOURCE} source tokens, {NEW} new "
              f"tokens each, {SHAPE}, {name}; new tokens/s, median of {rounds} rounds")
        subjects = {"ours": ours(name, src)}
        if peer:
            subjects["HF BART"] = hugging_face(src, dtype)
        print_table(measure(subjects, ("greedy", "beam"), rows, rounds), lambda name: "ours")
