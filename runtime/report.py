"""The report at the end of a run: kinds of process that it has not learned, skipped steps, the next command."""

SHOWN = 12  # kinds in the table at the end
NAMED = 5  # skipped rows in the last line
ENOUGH = 5  # training rows of a kind that must all be wrong before it is said; a sample has so many of each


def power_of_two_bin(count):
    """The bin of a count: 32 to 63 are in "32-63"."""
    low = 1 << count.bit_length() - 1
    return f"{low}-{2 * low - 1}"


def never_learned(kinds, share):
    """
    Kinds of process with ENOUGH training rows and none right, while 90% of the others' are. kinds: {kind: {"rows":
    their number, `share`: share of them that is right}}.
    """
    never = [kind for kind, group in kinds.items() if group["rows"] >= ENOUGH and group[share] == 0]
    others = [group for kind, group in kinds.items() if kind not in never]
    right = sum(group["rows"] * group[share] for group in others)
    return never if others and right >= 0.9 * sum(group["rows"] for group in others) else []


def print_kinds(valid, train):
    """Print the kinds of process with the fewest exact matches (by_kind of `validate`), if there are several."""
    figures = {**train, **valid}
    worst = sorted(figures, key=lambda kind: figures[kind]["exact"])[:SHOWN]
    if len(worst) < 2:
        return
    width = max(len("kind of process"), *map(len, worst))
    print(f"{'kind of process':{width}}  {'valid':>6} {'exact':>7}  {'train':>6} {'exact':>7}")
    for kind in worst:
        columns = [f"{table[kind]['rows']:6} {table[kind]['exact']:7.1%}" if kind in table else f"{'-':>6} {'-':>7}"
                   for table in (valid, train)]
        print(f"{kind:{width}}  {'  '.join(columns)}")
    more = len(figures) - len(worst)
    if more:
        print(f"and {more} more kinds, none of them worse")


def report(out_dir, best, train_csv, skipped, skipped_lines):
    """Print the validation figures of best.pt by kind of process, the next command, and which steps were skipped."""
    if best is None:  # stopped before its first validation, then resumed with a limit that it has passed
        print(f"no validation yet; python train.py {out_dir}/config.py --resume --max_steps=MORE goes on")
    else:
        print_kinds(best.get("valid_by_kind", {}), best.get("train_by_kind", {}))
        print(f"best on the validation split: exact match {best['valid_exact']:.2%}, loss {best['valid_loss']:.4f} "
              f"at step {best['step']}, {out_dir}/best.pt; next: python evaluate.py {out_dir}/config.py")
    if skipped:
        often = sorted(skipped_lines, key=lambda line: -skipped_lines[line])
        named = ", ".join(f"{train_csv}:{line} ({skipped_lines[line]} x)" for line in often[:NAMED])
        more = f" and {len(often) - NAMED} more rows" if len(often) > NAMED else ""
        print(f"{skipped} steps were skipped, as the gradient was not finite or the loss a spike"
              f"{': ' if named else ''}{named}{more}; {out_dir}/log.jsonl has them all")
