"""What the models of a benchmark were given: what is equal, what is not, and what each took."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from histill.evaluation.predictions import Model
from histill.methods.train import run_folder
from histill.provenance import read_json
from histill.stages import MODELS, task_of

_EQUAL = (
    "Folds, seeds, inner splits, tile features and tested patients are the same for all models.",
    "Networks learn by AdamW with a learning rate of {learning_rate:g} and a weight decay of {weight_decay:g}, at most "
    "{epochs} epochs, until {patience} bring no better validation loss, in batches of {batch_size} patients with at "
    "most {max_tiles} random tiles a magnification and patient, from the same loss of the outcome.",
    "Options are those of the config: nothing is searched for in these patients but the penalties of linear models.",
)
_LINEAR = (
    "Linear models, and the one that judges in `retrieval`, have no epochs: ridge on {components} principal components "
    "a modality, its penalty chosen among {alphas} by cross-validation in the training patients, which include the "
    "inner split; of survival it is a Cox model."
)
_RNA = (
    "Models that read RNA learn from the training patients that have it, models that read slides alone from all that "
    "have a slide: the column `patients` says how many."
)
_MIRROR = (
    "`mirror` is first trained without labels for {epochs} epochs, with a learning rate of {learning_rate:g}, on "
    "patients with slide and RNA. `slide`, `rna` and `fused` are linear probes of that; the student learns with a "
    "learning rate of {student:g}. All of them read {magnification}."
)
_MSRL = (
    "`msrl` is first trained without labels for {epochs} epochs; its students learn in batches of {batch_size} with a "
    "learning rate of {learning_rate:g} and a weight decay of {weight_decay:g}."
)


def equal(config: dict[str, Any]) -> list[str]:
    """What all models of a complete config share, in sentences."""
    return [line.format(**config["training"]["model"]) for line in _EQUAL]


def unequal(config: dict[str, Any], methods: list[str]) -> list[str]:
    """What the methods do not share, in sentences; of methods that are not there nothing is said."""
    options, found = config["methods"], [_RNA] if any(_reads_rna(method) for method in methods) else []
    if any(method.startswith("linear") or method == "retrieval" for method in methods):
        linear = options["linear"]
        found.append(_LINEAR.format(components=linear["components"], alphas=len(linear["alphas"])))
    if "meanpool" in methods:
        found.append("`meanpool` reads the mean of all tiles in training too, not of random ones.")
    if "transmil" in methods and options["transmil"]["magnification"]:
        found.append(f"`transmil` reads {options['transmil']['magnification']} alone.")
    if "disentangled" in methods:
        found.append("The student of `disentangled` stands on its teacher: two trainings, each with the budget above.")
    if "mirror" in methods:
        own, asked = options["mirror"], options["mirror"]["model"]["magnification"]
        read = f"{asked} alone" if asked else "the finest magnification alone"
        student = own["student"]["learning_rate"]
        found.append(_MIRROR.format(**own["pretrain"], student=student, magnification=read))
    if "msrl" in methods:
        own = options["msrl"]
        found.append(_MSRL.format(**own["student"] | {"epochs": own["pretrain"]["epochs"]}))
    return found


def cost(results: Path, task: str, model: Model, runs: list[tuple[int, int]]) -> dict[str, Any]:
    """What a model took, medians over its runs (fold, seed).

    Returns
    -------
    `patients` it learned from, `epochs` of its own stage (None of models without), `seconds` of training with the
    stages that it stands on, `numbers` in its file; each None where the runs' files are not there any more.
    """
    folders = [_folders(results, task, model, fold, seed) for fold, seed in runs]
    if not all((folder / "receipt.json").exists() for chain in folders for folder in chain):
        return dict.fromkeys(("patients", "epochs", "seconds", "numbers"))
    receipts = [[read_json(folder / "receipt.json") for folder in chain] for chain in folders]
    figures = [chain[-1]["figures"] for chain in receipts]
    return {
        "patients": _median([own.get("patients") for own in figures]),
        "epochs": _median([own.get("epochs") for own in figures]),
        "seconds": _median([sum(receipt["seconds"] for receipt in chain) for chain in receipts]),
        "numbers": _numbers(folders[0][-1] / "model.safetensors"),
    }


def _folders(results: Path, task: str, model: Model, fold: int, seed: int) -> list[Path]:
    """Folders of a run and of those it stands on; its own is the last."""
    names = _chain(model.method, model.stage)
    return [run_folder(results, task_of(model.method, name, task), model.method, name, fold, seed) for name in names]


def _chain(method: str, stage: str) -> list[str]:
    before = [name for own in MODELS[method][stage].after for name in _chain(method, own)]
    return [*dict.fromkeys(before), stage]


def _reads_rna(method: str) -> bool:
    return any("rna" in node.reads for node in MODELS[method].values())


def _median(values: list[float | None]) -> float | None:
    return None if None in values else float(statistics.median(values))


def _numbers(path: Path) -> int:
    """Numbers in the tensors of a file, without reading them."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
