"""What evaluate.py prints at its end: the figures of a report as a table, and some answers beside the truth."""
from runtime.certainty import SHARES
from runtime.report import never_learned
from runtime.scores import OTHERWISE, RIGHT, UNFINISHED, UNREADABLE, WRONG, kind_of

SHOWN = {RIGHT: 2, OTHERWISE: 2, WRONG: 3, UNFINISHED: 1, UNREADABLE: 1}  # answers of each kind


def table(report):
    lookup = report["lookup"]
    lines = [f"{report['rows']} rows"]

    def add(name, share, comment="", *more):
        lines.append(f"{name:18} {share:7.2%}   {comment}".rstrip())
        lines.extend(f"{'':28}{comment}" for comment in more)

    highest = f"the exact text; at most {report['ceiling']:.2%} can be expected"
    add("sequence accuracy", report["sequence_accuracy"], highest)
    add("right physics", report["right_physics"], "the exact text, or proven to be the square though spelled otherwise")
    add("token accuracy", report["token_accuracy"])
    add("coverage", report["coverage"], "answers proven right before anyone sees them (--verify)")
    add("lookup table", report["lookup_accuracy"],
        f"what a table of the training rows would score: {lookup['exact']:.2%} if it ignores",
        f"index names, {lookup['renamed']:.2%} if particle names too,",
        f"{lookup['rescaled']:.2%} if the number in front too,",
        f"{lookup['relabelled']:.2%} if the order and sides of the legs too;",
        f"{report['rows_in_training_set']} rows are in the training set up to index names")
    if report["unseen"] and report["rows_in_training_set"]:
        unseen = report["unseen"]
        add("unseen rows", unseen["sequence_accuracy"], f"the exact text, {unseen['right_physics']:.2%} right physics: "
            f"the {unseen['rows']} rows that are not in the training set")
    if "train" in report:
        train = report["train"]
        add("training rows", train["sequence_accuracy"],
            f"the exact text, {train['right_physics']:.2%} right physics: {train['rows']} rows of the training split")
        for kind in never_learned(train["by_process"], "right_physics"):
            count = train["by_process"][kind]["rows"]
            lines.append(f"warning: {kind} was not learned: none of its {count} training rows looked at is right, "
                         "of the other kinds at least 90% are")
    if report["mistakes"]:
        lines.append("wrong answers: " + ", ".join(f"{count} {kind}" for kind, count in report["mistakes"].items()))
    if report["rows_unproven"]:
        lines.append(f"{report['rows_unproven']} answers counted as wrong are equal to the square in floating point, "
                     "but have no proof")
    if report.get("rows_unreadable"):
        lines.append(f"{report['rows_unreadable']} more rows cannot be read or judged and count nowhere")
    if report["certainty"]:
        lines += ["", f"{'right physics of the most certain':34}" + "".join(f"{share:>8.0%}" for share in SHARES)]
        lines += [f"  by {figure:29}" + "".join(f"{right:8.1%}" for right in shares.values())
                  for figure, shares in report["certainty"].items()]
    for title, groups in (("process", report["by_process"]), ("target tokens", report["by_length"])):
        width = max(map(len, (title, *groups)))
        lines += ["", f"{title:{width}}  {'rows':>6} {'exact':>8} {'physics':>8}"]
        lines += [f"{name:{width}}  {group['rows']:6} {group['sequence_accuracy']:8.1%} {group['right_physics']:8.1%}"
                  for name, group in groups.items()]
    return "\n".join(lines)


def examples(rows, width):
    """
    Some answers of each kind beside the truth, each line at most `width` characters. Of long texts the characters
    around the first difference are shown.
    """
    lines = []
    for verdict, count in SHOWN.items():
        for row in [row for row in rows if row["verdict"] == verdict][:count]:
            truth, answer = row["sqamp"], row["prediction"]
            same = next((k for k, (a, b) in enumerate(zip(truth, answer)) if a != b), min(len(truth), len(answer)))
            middle = same if truth != answer else 0
            texts = ("amp", row["amp"], 0), ("truth", truth, middle), ("answer", answer, middle)
            lines += ["", f"{verdict}: {kind_of(row)}"]
            lines += [f"  {name:6} {shorten(text, width - 9, at)}" for name, text, at in texts]
    return "\n".join(lines)


def shorten(text, width, middle):
    """At most `width` characters of the text, those around `middle`; ... where something is left out."""
    if len(text) <= width:
        return text
    first = max(0, min(middle - width // 2, len(text) - width))
    piece, last = text[first:first + width], first + width
    if first > 0:
        piece = "..." + piece[3:]
    if last < len(text):
        piece = piece[:-3] + "..."
    return piece
