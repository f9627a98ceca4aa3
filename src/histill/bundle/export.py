"""From the results of a run to a bundle: the models of all folds and seeds of one stage, and their reference."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from histill import __version__
from histill.bundle import card, manifest
from histill.bundle.bundle import LOCAL, SECTIONS
from histill.bundle.held_out import HeldOut, fit_reference
from histill.bundle.recipe import differences, portable
from histill.cohort.tasks import Task
from histill.data.fold import Cohort
from histill.errors import HistillError
from histill.evaluation.predictions import Model, read_outcomes, read_predictions
from histill.features.store import group_names, read_recipe
from histill.methods.checkpoint import Checkpoint
from histill.methods.train import run_folder, runs
from histill.provenance import atomic_file, atomic_folder, read_json
from histill.stages import MODELS, ModelStage, model_recipe, task_of

# Of what a run says of its checkpoint, what may travel.
_PROVENANCE = ("method", "stage", "fold", "seed", "recipe", "slides")
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+-]*")
# Kinds that read a slide alone, and hold what was measured of single patients.
_OF_PATIENTS = {"retrieval": "it holds the transcriptomes of its training patients"}


def export(
    *,
    config: dict[str, Any],
    task: str,
    method: str,
    stage: str,
    out: str | Path,
    licence: str = "other",
    log: Callable[[str], None] = print,
) -> Path:
    """Write a bundle; an older one in its place is replaced when the new one is whole.

    Parameters
    ----------
    config
        Complete config of a run that was trained, predicted and evaluated.
    method, stage
        What is exported: any stage that predicts from a slide alone.
    licence
        Of the bundle, as the hub names licences; `other` where that is not settled.

    Raises
    ------
    HistillError
        Where the stage reads more than a slide, where a fold is not trained, was trained under another config or is not
        evaluated, and where features are of several recipes.
    """
    results, out = Path(config["results"]), Path(out)
    if not _LICENCE.fullmatch(licence):
        raise HistillError(
            f"{licence!r} is no name of a licence", mend="give one as the hub names it, such as cc-by-nc-4.0"
        )
    node = _stage(config, task, method, stage)
    _check_place(out)
    definition, name = Task.from_config(task, config["tasks"][task]), Model(method, stage).name
    folders = _trained(config, results, task, method, stage)
    evaluation = _evaluation(results, task, name)
    outcomes = read_outcomes(results, task, definition.type)
    predictions = read_predictions(results, task, Model(method, stage), outcomes, config["seeds"])
    cohort = Cohort.read(results, config["features"]["encoder"])
    recipe = _recipe(cohort)
    times = np.array(evaluation["horizons"]["times"] if definition.type == "survival" else [], dtype=np.float64)
    held = HeldOut.of(predictions, outcomes)
    if (evaluation["seeds"], evaluation["own"][name]["n"]) != (config["seeds"], len(held.patients)):
        raise HistillError(
            f"the evaluation of task '{task}' is of other predictions than there are now",
            mend=f"run: histill evaluate --task {task}, or snakemake",
        )
    reference = fit_reference(cohort, outcomes, held, times)
    known = held.patients
    about = {
        "histill": __version__,
        "task": {
            "name": task,
            "type": definition.type,
            "classes": list(outcomes.classes),
            "time": definition.columns[0] if definition.type == "survival" else None,
            "bins": definition.bins,
        },
        "method": method,
        "stage": stage,
        "kind": node.kind,
        "encoder": _encoder(recipe),
        "recipe": recipe,
        "levels": cohort.bags.features,
        "options": {section: {**config[section], **LOCAL.get(section, {})} for section in SECTIONS},
        "members": [
            {"fold": fold, "seed": seed, "risk": _scale(predictions.training_risk.get((fold, seed)))}
            for fold, seed in folders
        ],
        "times": times.tolist(),
        "reference": {"patients": len(known), "folds": len(reference.appearances)},
        "cohort": _counts(cohort, known, evaluation["own"][name]),
    }
    facts = {
        "about": about,
        "licence": licence,
        "node": node,
        "evaluation": evaluation,
        "name": name,
        "reference": reference,
        "seconds": _seconds(results, task, method, stage, list(folders)),
    }
    with atomic_folder(out) as part:
        for number, folder in enumerate(folders.values()):
            _write_member(folder, part / manifest.member_folder(number))
        _write_arrays(part / manifest.REFERENCE, reference.state())
        (part / manifest.CARD).write_text(card.render(**facts), encoding="utf-8")
        manifest.write(part, about)
    log(f"{out}: {name} for task '{task}', {len(folders)} members")
    return out


def _stage(config: dict[str, Any], task: str, method: str, stage: str) -> ModelStage:
    """The stage, or an error that says why there is no bundle of it."""
    if task not in config["tasks"]:
        raise HistillError(f"the config has no task '{task}'", mend=f"choose one of: {', '.join(config['tasks'])}")
    if method not in config["methods"]["run"]:
        run = ", ".join(config["methods"]["run"])
        raise HistillError(f"methods.run of the config does not have '{method}'", mend=f"choose one of: {run}")
    own = MODELS[method]
    if stage not in own:
        raise HistillError(f"method '{method}' has no stage '{stage}'", mend=f"choose one of: {', '.join(own)}")
    node = own[stage]
    alone = [name for name, other in own.items() if other.labels and other.reads == ("slide",)]
    mend = f"export stage {' or '.join(alone)} of it" if alone and node.reads != ("slide",) else "export another method"
    if not node.labels:
        raise HistillError(f"stage '{stage}' of '{method}' learns without labels and predicts nothing", mend=mend)
    if node.reads != ("slide",):
        raise HistillError(
            f"stage '{stage}' of '{method}' reads {' and '.join(node.reads)} of a patient; a bundle is of models that "
            "need the slide alone",
            mend=mend,
        )
    if node.kind in _OF_PATIENTS:
        raise HistillError(f"'{method}' cannot leave the results: {_OF_PATIENTS[node.kind]}", mend=mend)
    return node


def _check_place(out: Path) -> None:
    """Refuse to replace anything that is not a bundle."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise HistillError(f"{out} is no folder", mend="name another place with --out")
    if not out.exists() or (out / manifest.MANIFEST).is_file():
        return
    # Before a rule runs again snakemake removes the outputs that it knows of: bundle.json and the card.
    there = {path.name for path in out.iterdir()}
    if there and there - {manifest.CARD} != {manifest.MEMBERS, manifest.REFERENCE}:
        raise HistillError(f"{out} exists and is no bundle", mend="name another place with --out, or remove it")


def _trained(config: dict[str, Any], results: Path, task: str, method: str, stage: str) -> dict[tuple[int, int], Path]:
    """(fold, seed) -> folder of every run of a stage, all of them trained under the config."""
    wanted = model_recipe(method, stage, config, task=task)
    folders = {run: run_folder(results, task, method, stage, *run) for run in runs(config, results)}
    mend = f"run: histill train --task {task} --method {method} --stage {stage}, or snakemake"
    absent = [run for run, folder in folders.items() if not (folder / "receipt.json").exists()]
    if absent:
        named = ", ".join(f"fold {fold} seed {seed}" for fold, seed in absent[:8])
        which = "no fold" if len(absent) == len(folders) else f"{len(absent)} of {len(folders)} runs are not, {named}"
        raise HistillError(f"{method} {stage} for task '{task}' is not trained: {which}", mend=mend)
    features = read_json(results / "receipts" / "cohort.json")["features"]
    for folder in folders.values():
        receipt = read_json(folder / "receipt.json")
        missing = [name for name in receipt["outputs"] if not (folder / name).exists()]
        if missing:
            raise HistillError(f"{folder}: {missing[0]} is gone", mend=mend)
        if receipt["recipe"] != wanted:
            raise HistillError(f"{folder}: trained under another config, or by another version of histill", mend=mend)
        if receipt["inputs"]["features"] != features:
            raise HistillError(f"{folder}: trained on other features than there are now", mend=mend)
    return folders


def _evaluation(results: Path, task: str, name: str) -> dict[str, Any]:
    path, mend = results / "evaluation" / f"{task}.json", f"run: histill evaluate --task {task}, or snakemake"
    if not path.exists():
        raise HistillError(f"{path} does not exist: a bundle says how good its models are", mend=mend)
    evaluation = read_json(path)
    if name not in evaluation["own"]:
        raise HistillError(f"{path} has no metrics of '{name}'", mend=mend)
    return evaluation


def _recipe(cohort: Cohort) -> dict[str, Any]:
    """The recipe of all stores of a cohort."""
    first, found = None, {}
    for slide in sorted({slide for ids in cohort.bags.slides.values() for slide in ids}):
        store = cohort.bags.folder / f"{slide}.zarr"
        for level in group_names(store):
            own = portable(read_recipe(store, level))
            if first is None:
                first, found = store, own
            elif differing := differences(found, own):
                raise HistillError(
                    f"features of {first} and {store} are of different recipes: {'; '.join(differing)}",
                    mend="extract all slides with one recipe: delete the older stores and run snakemake",
                )
    return found


def _encoder(recipe: dict[str, Any]) -> dict[str, Any]:
    named = recipe.get("name") or recipe.get("encoder")
    return {"name": named, **{key: recipe.get(key) for key in ("licence", "gated", "hub")}}


def _scale(training_risk: np.ndarray | None) -> dict[str, float] | None:
    """What a member's risks are standardised by (`histill.evaluation.survival_curves.risk_margin`)."""
    if training_risk is None:
        return None
    return {"median": float(np.median(training_risk)), "deviation": float(training_risk.std())}


def _counts(cohort: Cohort, patients: list[str], own: dict[str, Any]) -> dict[str, Any]:
    """Numbers of patients, slides, transcriptomes and sites, and of events or classes; no names."""
    sites = {cohort.value(patient, "site") for patient in patients} - {None, ""}
    return {
        "patients": len(patients),
        "slides": sum(len(cohort.bags.slides[patient]) for patient in patients),
        "transcriptomes": sum(bool(cohort.value(patient, "has_rna")) for patient in patients),
        "sites": len(sites),
        "events": own.get("events"),
        "classes": own.get("classes", {}),
    }


def _seconds(results: Path, task: str, method: str, stage: str, trained: list[tuple[int, int]]) -> float:
    """Time that training took, over all runs of a stage and of those it stands on."""
    total = 0.0
    for fold, seed in trained:
        place = run_folder(results, task_of(method, stage, task), method, stage, fold, seed)
        total += read_json(place / "receipt.json")["seconds"]
    return total + sum(_seconds(results, task, method, name, trained) for name in MODELS[method][stage].after)


def _write_member(trained: Path, folder: Path) -> None:
    """A checkpoint without what its training read of transcriptomes."""
    checkpoint = Checkpoint.read(trained)
    provenance = {key: checkpoint.provenance[key] for key in _PROVENANCE if key in checkpoint.provenance}
    replace(checkpoint, expression=None, provenance=provenance).write(folder)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    with atomic_file(path) as part:
        save_file({name: np.asarray(value, order="C") for name, value in arrays.items()}, part)
