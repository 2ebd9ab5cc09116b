"""Benchmarks: each measures this project beside a named peer, in the same run.

    python bench/run.py data                                         milliseconds per row of making and verifying data
    python bench/run.py train [config/file.py] [--key=value ...]     training beside torch.nn.Transformer
    python bench/run.py decode                                       decoding beside Hugging Face and CTranslate2
    python bench/run.py sinekan [config/file.py] [--key=value ...]   SineKAN beside the MLP
    python bench/run.py wave [config/file.py] [--key=value ...]      encoders linear in the length beside attention
    python bench/run.py gpu [config/file.py] [--key=value ...]       one GPU: training, decoding, validation
    python bench/speedrun.py                                         seconds of training until all answers are right

`python bench/run.py NAME --help` describes one of them.
"""
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

# Run as a script: import from the repository, not from this folder, which has a train.py of its own
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch is imported; train.py says why

from batches import load_split
from bench import decode as bench_decode
from bench import gpu as bench_gpu
from bench import sinekan as bench_sinekan
from bench import train as bench_train
from bench import wave as bench_wave
from dataset.rows import make_rows, randomise_indices
from dataset.vocabulary import build_vocabulary
from physics.processes import list_processes
from physics.theory import THEORIES
from runtime.files import InputError, main_guard, write_rows
from tokenizer import Tokenizer, lex

DATA_HELP = """Data: CPU milliseconds per row, and rows per second of the tokenizer.

    python bench/run.py data

The table has generating, squaring and verifying of QED, QCD and electroweak diagrams. Its column MARTY has the time
that MARTY took for amplitude and square. It was measured on another machine, so that it gives an order of magnitude.
The last line has the rows per second that the tokenizer reads from a CSV file, encodes and packs to disk, beside its
plain lexer in the same run: median of five rounds."""
ROUNDS = 5
# theory, legs, number of processes drawn, MARTY's milliseconds per row for amplitude and square
SETS = (("qed", "2->2", 400, 15), ("qcd", "2->2", 200, 128), ("ew", "2->2", 60, 84),
        ("qed", "2->3", 40, 330), ("qcd", "2->3", 6, 671))


def bench_rows():
    print(f"{'set':10} {'rows':>5} {'amplitude':>10} {'square':>8} {'verify':>8}   ms a row (CPU)   "
          f"{'MARTY':>6}  times faster")
    for theory, legs, count, marty in SETS:
        processes = list_processes(legs, THEORIES[theory])
        processes = random.Random(1).sample(processes, min(count, len(processes)))
        made = make_rows(processes, theory, "diagram", "all", 1)
        rows = len(made["rows"])
        amplitude, square, verification = (1000 * made["seconds"][name] / rows
                                           for name in ("amplitudes", "squares", "verification"))
        line = (f"{theory + ' ' + legs:10} {rows:5} {amplitude:10.2f} {square:8.2f} {verification:8.2f} {marty:22} "
                f"{marty / (amplitude + square):13.0f}")
        if made["wrong"]:
            line += f"   {len(made['wrong'])} WRONG"
        print(line)


def bench_tokenizer(copies=8):
    """Pack a CSV file of QED rows, each copy with its own index names, and lex the same texts plainly."""
    made = make_rows(list_processes("2->2", THEORIES["qed"]), "qed", "diagram", "all", 1)
    rows = [{"amp": randomise_indices(row["amp"], seed), "sqamp": row["sqamp"]}
            for seed in range(copies) for row in made["rows"]]
    packing, lexing = [], []  # rows per second of each round
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder, "train.csv"), ["amp", "sqamp"], rows)
        tokenizer = Tokenizer(build_vocabulary(Path(folder, "train.csv")))
        packed = load_split(folder, "train", tokenizer, 999, 999)
        print(f"QED 2->2: {len(packed.src) / len(rows):.1f} source and {len(packed.tgt) / len(rows):.1f} "
              "target tokens a row, with the end token")
        for limit in range(1000, 1000 + ROUNDS):  # another length limit makes another cache file
            started = time.perf_counter()
            load_split(folder, "train", tokenizer, limit, limit)
            packing.append(len(rows) / (time.perf_counter() - started))
            some = rows[::20]
            started = time.perf_counter()
            for row in some:
                lex(row["amp"])
                lex(row["sqamp"])
            lexing.append(len(some) / (time.perf_counter() - started))
    ratio = statistics.median(fast / slow for fast, slow in zip(packing, lexing))
    print(f"tokenizer: {statistics.median(packing):,.0f} rows/s packed from CSV to disk, "
          f"plain lexer {statistics.median(lexing):,.0f} rows/s; {ratio:.1f} times")


def bench_data():
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    bench_rows()
    bench_tokenizer()


def main():
    name, *arguments = sys.argv[1:] or ["--help"]
    wants_help = "--help" in arguments or "-h" in arguments
    if name in ("--help", "-h"):
        print(__doc__.strip())
    elif name == "train":
        bench_train.main(arguments)  # reads settings and --help itself
    elif name == "sinekan":
        bench_sinekan.main(arguments)  # the same
    elif name == "wave":
        bench_wave.main(arguments)  # the same
    elif name == "gpu":
        bench_gpu.main(arguments)  # the same
    elif name not in ("data", "decode"):
        raise InputError(f"bench/run.py {name}: no such benchmark; expected data, train, decode, sinekan, wave or gpu")
    elif wants_help:
        print(DATA_HELP if name == "data" else bench_decode.__doc__.strip())
    elif arguments:
        raise InputError(f"bench/run.py {name}: takes no settings, got {' '.join(arguments)}")
    elif name == "data":
        bench_data()
    else:
        bench_decode.bench_decode()


if __name__ == "__main__":
    main_guard(main, own_help=True)
