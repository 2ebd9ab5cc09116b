"""
A model to give away: a folder with model.safetensors, config.json, vocabulary.json and README.md, the card in the
format of the Hugging Face hub. runtime/checkpoint.py reads the folder again.
"""
from pathlib import Path

import torch

from dataset.card import MODEL, exporting, lookup_table, origin, read_manifest, table, yaml
from runtime.checkpoint import EXPORTED, weights
from runtime.files import InputError, atomic_open, write_json
from runtime.page import search_text


def export_model(folder, state, report):
    """Write the model of a checkpoint with its card. report: what evaluate.py has found out about this checkpoint."""
    try:
        from safetensors.torch import save
    except ImportError:
        raise InputError("export: safetensors is not installed; pip install safetensors") from None
    tensors = {name: tensor.float().clone(memory_format=torch.contiguous_format)  # tied ones share no memory then
               for name, tensor in weights(state).items()}
    parameters = sum(tensor.numel() for tensor in tensors.values())
    with exporting(folder, *MODEL) as made:
        with atomic_open(made / EXPORTED, "wb") as file:
            file.write(save(tensors))
        write_json(made / "vocabulary.json", state["vocabulary"])
        with atomic_open(made / "README.md") as file:
            file.write(model_card(Path(folder).absolute().name, state, parameters, report))
        config = {name: state[name] for name in ("version", "model_config", "step", "settings")}
        write_json(made / "config.json", config)


def interval(report, key):
    low, high = report["intervals"][key]
    return f"{low:.1%} to {high:.1%}"


def model_card(name, state, parameters, report):
    """Markdown of a model's card."""
    config, settings = state["model_config"], state["settings"]
    metrics = [{"type": key, "name": title, "value": round(report[key], 6)} for key, title in (
        ("sequence_accuracy", "exact match"), ("right_physics", "right physics"), ("lookup_accuracy", "lookup table"),
        ("ceiling", "ceiling of exact match"))]
    source = {"type": "csv", "name": Path(report["data_dir"]).name, "split": Path(report["input"]).stem}
    results = [{"task": {"type": "text-generation", "name": "squares of scattering amplitudes"}, "dataset": source,
                "metrics": metrics}]
    head = yaml({"license": "mit", "tags": ["physics", "scattering-amplitudes", "symbolic-mathematics"],
                 "library_name": "pytorch", "model-index": [{"name": name, "results": results}]})
    scores = table(["figure", "value", "95% interval"], [
        ["exact text", f"{report['sequence_accuracy']:.2%}", interval(report, "sequence_accuracy")],
        ["right physics: exact, or proven to be the square", f"{report['right_physics']:.2%}",
         interval(report, "right_physics")],
        ["token accuracy", f"{report['token_accuracy']:.2%}", interval(report, "token_accuracy")],
        ["lookup table of the training rows", f"{report['lookup_accuracy']:.2%}", ""],
        ["ceiling of exact match", f"{report['ceiling']:.2%}", ""]])
    groups = table(["process", "rows", "exact", "right physics"], [
        [f"`{kind}`", group["rows"], f"{group['sequence_accuracy']:.1%}", f"{group['right_physics']:.1%}"]
        for kind, group in report["by_process"].items()])
    size = f"{config['encoder_layers']} + {config['decoder_layers']} layers of width {config['d_model']}"
    return f"""{head}
# {name}

A transformer that squares tree-level scattering amplitudes: text in, text out. The input is an amplitude in MARTY's
grammar; the answer is its square, summed over spins, polarisations and colours and averaged over the incoming ones.
{parameters:,} parameters, {size}, step {state["step"]:,}, seed {settings.get("seed", "unknown")}.

```python
from decode import decode, load
model = load("PATH/TO/{name}")  # this folder; amplitudes: a list of texts in MARTY's grammar
for answer in decode(model, amplitudes, beam_size=5, check=True): print(answer.prediction, answer.status)
```

## Data

{about_data(report)}

## Scores

Of {report["rows"]:,} rows of `{Path(report["input"]).name}` (SHA-256 begins with `{report["input_sha256"][:16]}`), by
{search_text(report["search"])}:

{scores}

The intervals are over the rows; other seeds are not in them. {report["rows_in_training_set"]:,} of the rows stand in
the training set up to index names. What a lookup table of the training rows scores, which finds equal amplitudes:

{lookup_table(report["lookup"])}

By kind of process (f: fermion, f~: antifermion, A: photon, G: gluon, W and Wm: W+ and W-, h: Higgs boson):

{groups}

## Limits

- An answer may be wrong. `check=True` compares it with the amplitude, in floating point and then in exact arithmetic;
  only the status `verified` means that it is the square.
- The model knows the particles, the kinematics and the lengths of its training rows. It reads at most
  {config["src_max_len"]} tokens and writes at most {config["tgt_max_len"] - 1}, end tokens included.
- Trees only. The square of a single diagram has no interference and is no cross section.

## Licence

MIT, as the program. The scores hold for these weights, this data and this search.
"""


def about_data(report):
    """What the card of a model says of its data set."""
    manifest = read_manifest(report["data_dir"])
    text = f"`{Path(report['data_dir']).name}`, split `{report['split'] or 'unknown'}`"
    if manifest:
        rows, made = ", ".join(f"{count:,} {name}" for name, count in manifest["rows"].items()), manifest["settings"]
        text += (f": {rows} rows, all verified, of {origin(made)}, seed {made['seed']}.\n"
                 f"SHA-256 of train.csv begins with `{manifest['sha256']['train'][:16]}`")
    return f"{text}."
