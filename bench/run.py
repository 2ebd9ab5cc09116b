"""How fast: each measurement beside a named peer, on one core.

    python bench/run.py [data]
    python bench/run.py train [config/file.py] [--key=value ...]     training beside torch.nn.Transformer, see bench/train.py
    python bench/run.py sinekan [config/file.py] [--key=value ...]   SineKAN beside the MLP, see bench/sinekan.py
    python bench/run.py decode                                       decoding beside Hugging Face and CTranslate2, see bench/decode.py

data: milliseconds a row for generating, squaring and verifying QED, QCD and electroweak diagrams, beside the milliseconds that the
design of this project quotes for MARTY; rows a second of the tokenizer with its cache of factors, beside its plain lexer in the same run (median of five rounds).
"""
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the repository, not this folder: `import train` means train.py

from batches import load_split
from bench import sinekan as bench_sinekan
from bench import train as bench_train
from bench.decode import bench_decode
from dataset.rows import make_rows, randomise_indices
from physics.processes import list_processes
from physics.theory import THEORIES
from runtime.files import InputError, main_guard, write_rows
from tokenizer import Tokenizer, build_vocabulary, lex

ROUNDS = 5
# theory, legs, number of processes drawn, ms a row of MARTY for amplitude and square
SETS = (("qed", "2->2", 400, 15), ("qcd", "2->2", 200, 128), ("ew", "2->2", 60, 84),
        ("qed", "2->3", 40, 330), ("qcd", "2->3", 6, 671))


def bench_data():
    print(f"{'set':10} {'rows':>5} {'amplitude':>10} {'square':>8} {'verify':>8}   ms a row (CPU)   {'MARTY':>6}  times faster")
    for theory, legs, count, marty in SETS:
        processes = list_processes(legs, THEORIES[theory])
        processes = random.Random(1).sample(processes, min(count, len(processes)))
        done = make_rows(processes, theory, "diagram", "all", 1)
        rows = len(done["rows"])
        amplitude, square, verification = (1000 * done["seconds"][name] / rows for name in ("amplitudes", "squares", "verification"))
        print(f"{theory + ' ' + legs:10} {rows:5} {amplitude:10.2f} {square:8.2f} {verification:8.2f} {marty:22} {marty / (amplitude + square):13.0f}"
              + f"   {len(done['wrong'])} WRONG" * bool(done["wrong"]))


def bench_tokenizer(copies=8):
    """Packing a CSV file of QED rows, each with index names of its own, and lexing the same texts plainly."""
    done = make_rows(list_processes("2->2", THEORIES["qed"]), "qed", "diagram", "all", 1)
    rows = [{"amp": randomise_indices(row["amp"], seed), "sqamp": row["sqamp"]} for seed in range(copies) for row in done["rows"]]
    fast, slow = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder, "train.csv"), ["amp", "sqamp"], rows)
        tokenizer = Tokenizer(build_vocabulary(Path(folder, "train.csv")))
        packed = load_split(folder, "train", tokenizer, 999, 999)
        print(f"QED 2->2: {len(packed.src) / len(rows):.1f} source and {len(packed.tgt) / len(rows):.1f} target tokens a row, with the end token")
        for limit in range(1000, 1000 + ROUNDS):             # another limit, another cache
            started = time.perf_counter()
            load_split(folder, "train", tokenizer, limit, limit)
            fast.append(len(rows) / (time.perf_counter() - started))
            started = time.perf_counter()
            for row in rows[::20]:
                lex(row["amp"]), lex(row["sqamp"])
            slow.append(len(rows[::20]) / (time.perf_counter() - started))
    print(f"tokenizer: {statistics.median(fast):,.0f} rows/s packed from CSV to disk, plain lexer {statistics.median(slow):,.0f} rows/s; "
          f"{statistics.median(f / s for f, s in zip(fast, slow)):.1f} times")


def main():
    if sys.argv[1:2] == ["train"]:
        return bench_train.main(sys.argv[2:])
    if sys.argv[1:2] == ["sinekan"]:
        return bench_sinekan.main(sys.argv[2:])
    if sys.argv[1:] == ["decode"]:
        return bench_decode()
    if sys.argv[1:] not in ([], ["data"]):
        if "--help" in sys.argv or "-h" in sys.argv:
            print(__doc__.strip())
            return
        raise InputError(f"bench/run.py {' '.join(sys.argv[1:])}: no such benchmark; there are: data, train, sinekan, decode")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    bench_data()
    bench_tokenizer()


if __name__ == "__main__":
    main_guard(main)
