"""The training stages: for one task, method and stage, every fold and seed that is not yet done."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from histill.cohort.tasks import Task
from histill.data.expression_table import ExpressionTable, clinical_column
from histill.data.fold import Cohort
from histill.methods import ablation
from histill.methods.checkpoint import Checkpoint
from histill.methods.fold_run import UNFINISHED, FoldRun
from histill.methods.progress import TrainingProgress
from histill.provenance import digest, file_digest, read_json, write_json
from histill.software import sign
from histill.stages import MODELS, files, model_recipe, task_chosen_by, task_of

# Kind of model -> module below `histill.methods` and function: FoldRun -> (Checkpoint, figures).
_TRAINERS = {
    "teacher": "disentangled.training:train",
    "student": "disentangled.training:train",
    "mirror": "mirror.training:pretrain",
    "mirror-slide": "mirror.training:probe",
    "mirror-rna": "mirror.training:probe",
    "mirror-fused": "mirror.training:probe",
    "mirror-student": "mirror.training:student",
    "msrl-pretrain": "msrl.training:pretrain",
    "msrl-pretrain-slide": "msrl.training:pretrain",
    "msrl": "msrl.training:student",
    "msrl-slide": "msrl.training:student",
    "msrl-both": "msrl.training:both",
    "meanpool": "baselines.networks:meanpool",
    "abmil": "baselines.networks:abmil",
    "transmil": "baselines.networks:transmil",
    "snn": "baselines.networks:snn",
    "mcat": "baselines.networks:mcat",
    "retrieval": "baselines.training:retrieval",
    "linear-slide": "baselines.training:linear",
    "linear-rna": "baselines.training:linear",
    "linear-both": "baselines.training:linear",
}


def run_folder(results: str | Path, task: str, method: str, stage: str, fold: int, seed: int) -> Path:
    """Where a training run's files lie."""
    return Path(results) / "models" / task / method / f"fold{fold}-seed{seed}" / stage


def runs(config: dict[str, Any], results: str | Path) -> list[tuple[int, int]]:
    """(fold, seed) of every run of the config."""
    folds = read_json(Path(results) / "cohort" / "folds.json")["n"]
    return [(fold, seed) for seed in config["seeds"] for fold in range(folds)]


def run(
    *,
    task: str,
    method: str,
    stage: str,
    config: dict[str, Any],
    results: str | Path,
    only: tuple[int, int] | None = None,
    variant: str | None = None,
    log=print,
) -> list[dict[str, Any]]:
    """Train all folds and seeds (or `only` one) and return their receipts; runs that fit are skipped.

    With a `variant` of the ablation (`histill.methods.ablation`), its own models are trained beside the method's. The
    `task` of a stage without labels is `histill.stages.PRETRAIN`.
    """
    results = Path(results)
    node = MODELS[method][stage]
    places = {name: ablation.folder(config, variant, method, name, task=task) for name in (stage, *node.after)}
    config = ablation.configure(config, variant)
    # A student reads the genes through its teacher, in training only.
    needs_genes = any("rna" in MODELS[method][name].learns_from for name in (stage, *node.after))
    table = ExpressionTable.read(results, config) if needs_genes else None
    cohort = Cohort.read(results, config["features"]["encoder"], table)
    receipt = read_json(results / "receipts" / "cohort.json")
    inputs = {
        "cohort": receipt["outputs"] if node.labels else _without_labels(cohort, task_chosen_by(method, stage, config)),
        "features": receipt["features"] if "slide" in node.learns_from else None,
        "expression": _expression(results, table) if table else None,
        "cohorts": _cohorts(config, method),
        "files": [file_digest(path) for path in files(method, stage, config)],
    }
    recipe = model_recipe(method, stage, config, task=task)
    definition = Task.from_config(task, config["tasks"][task]) if node.labels else None
    chosen = [only] if only else runs(config, results)
    epochs = config["methods"].get(method, {}).get(stage, {}).get("epochs") or config["training"]["model"]["epochs"]
    what = f"{task} {places[stage]} {stage}" if node.labels else f"{method} {stage}"
    receipts = []
    with TrainingProgress(what, runs=len(chosen), epochs=epochs) as progress:
        for fold, seed in chosen:
            folder = run_folder(results, task, places[stage], stage, fold, seed)
            before = {
                name: run_folder(results, task_of(method, name, task), places[name], name, fold, seed)
                for name in node.after
            }
            own = {**inputs, **{name: read_json(place / "receipt.json")["outputs"] for name, place in before.items()}}
            name = f"{what} fold {fold} seed {seed}"
            done = _receipt(folder)
            if done and (done["recipe"], done["inputs"]) == (recipe, own):
                log(f"{name}: up to date")
                (folder / UNFINISHED).unlink(missing_ok=True)
                progress.up_to_date()
                receipts.append(done)
                continue
            (folder / "receipt.json").unlink(missing_ok=True)
            start = time.perf_counter()
            progress.begin(f"fold {fold}, seed {seed}")
            seen = cohort.without_rna(fold, config["training"]["hide_rna"], seed)
            key = digest([recipe, own, config["training"]["devices"]])
            fold_run = FoldRun(
                definition, node.kind, fold, seed, seen, config, folder, before, key, name, progress, log
            )
            checkpoint, figures = _train(fold_run)
            made = {"method": method, "stage": stage, "fold": fold, "seed": seed, "recipe": recipe}
            checkpoint.provenance = {**made, "slides": config["training"]["slides"], **checkpoint.provenance}
            outputs = checkpoint.write(folder)
            seconds = round(time.perf_counter() - start, 2)
            receipt = {
                "recipe": recipe,
                "inputs": own,
                "outputs": outputs,
                "figures": figures,
                "notes": checkpoint.expression.notes_ if checkpoint.expression else [],
                "seconds": seconds,
            }
            receipt = sign(results, receipt)
            write_json(folder / "receipt.json", receipt)
            for unfinished in folder.rglob(UNFINISHED):
                unfinished.unlink(missing_ok=True)  # another process may have trained the same run
            progress.done()
            log(f"{name}: {figures} ({seconds} s)")
            receipts.append(receipt)
    return receipts


def _train(run: FoldRun) -> tuple[Checkpoint, dict[str, Any]]:
    run.check()
    module, function = _TRAINERS[run.kind].split(":")
    return getattr(importlib.import_module(f"histill.methods.{module}"), function)(run)


def _without_labels(cohort: Cohort, chosen_by: str | None) -> str:
    """Digest of what a stage without labels reads of the cohort: outcomes of another task train nothing again."""
    labels = [f"label:{chosen_by}"] if chosen_by else []
    columns = {name: cohort.patients[name] for name in ("patient_id", "slides", "has_rna", *labels)}
    return digest({**columns, "assignment": cohort.folds["assignment"]})


def _cohorts(config: dict[str, Any], method: str) -> str | None:
    """Digest of the column that says which cohort patients are of."""
    column = config["methods"]["msrl"]["cohort"]
    if method != "msrl" or column is None:
        return None
    return digest(clinical_column(config, column, key="methods.msrl.cohort"))


def _expression(results: Path, table: ExpressionTable) -> list[Any]:
    """Digests of the expression matrix, of the gene sets it is cut into, and of the batches that are corrected."""
    receipt = read_json(results / "receipts" / "transcriptome.json")
    return [receipt["outputs"], receipt["inputs"]["gene_sets"], table.batches and digest(table.batches)]


def _receipt(folder: Path) -> dict[str, Any] | None:
    path = folder / "receipt.json"
    if not path.exists():
        return None
    receipt = read_json(path)
    return receipt if all((folder / name).exists() for name in receipt["outputs"]) else None
