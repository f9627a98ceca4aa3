"""Prediction: every patient a model can read, by every trained run of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.tasks import Task
from histill.data.bags import BagReader, Instances
from histill.data.expression_table import ExpressionTable
from histill.data.fold import TEST, Cohort
from histill.errors import HistillError
from histill.methods import ablation, maps
from histill.methods.baselines.training import linear_inputs
from histill.methods.checkpoint import Checkpoint
from histill.methods.train import run_folder, runs
from histill.provenance import atomic_file, digest, file_digest, read_json, write_json
from histill.software import sign
from histill.stages import MODELS, READS, model_recipe, predictors, recipe

PREDICTIONS = "predictions.parquet"
SURVIVAL = "s:"  # columns of survival probabilities; the rest of the name is the time
MAPPED = ("disentangled", "student")
BORROWING = ("msrl", "msrl-slide", "msrl-both")  # a training patient must not borrow from its own row
CASE = "case"
EXTRAS = ("mirror-slide", "mirror-rna", "mirror-fused", "msrl")  # kinds that say more than a prediction


def run(
    *,
    task: str,
    config: dict[str, Any],
    results: str | Path,
    variant: str | None = None,
    receipt_name: str | None = None,
    log=print,
) -> dict[str, Any]:
    """Write `predictions.parquet` beside every checkpoint of the task, or of a `variant` of the ablation alone.

    The distilled student's first seed also leaves its maps (`histill.methods.maps`) of the test patients, so that every
    patient is mapped once. Returns the receipt, which lies below `receipts/` under `receipt_name`, if that is given.

    Raises
    ------
    HistillError
        Where a run was trained under another config, or by another version, than what is asked for now.
    """
    results = Path(results)
    definition = Task.from_config(task, config["tasks"][task])
    if variant is None:
        stages = [ablation.Node(name, stage, name) for name in config["methods"]["run"] for stage in predictors(name)]
    else:
        stages = ablation.nodes(config, variant, task=task)
    slide_only = Cohort.read(results, config["features"]["encoder"])
    paired = None
    outputs = {}
    option = f" --variant {variant}" if variant else ""
    for node in stages:
        method, stage = node.method, node.stage
        needs_genes = "rna" in MODELS[method][stage].reads
        if needs_genes and paired is None:
            paired = Cohort.read(results, config["features"]["encoder"], ExpressionTable.read(results, config))
        cohort = paired if needs_genes else slide_only
        wanted = model_recipe(method, stage, ablation.configure(config, variant), task=task)
        for fold, seed in runs(config, results):
            folder = run_folder(results, task, node.folder, stage, fold, seed)
            trained = read_json(folder / "receipt.json")
            if trained["recipe"] != wanted:
                raise HistillError(
                    f"{folder}: the model was trained under another config, or by another version of histill",
                    mend=f"train again: histill train --task {task} --method {method} --stage {stage}{option}",
                )
            mapped = (node.folder, stage, seed) == (*MAPPED, config["seeds"][0])
            key = digest([trained["outputs"], trained["inputs"], recipe("predict", config, task=task), mapped])
            marker = folder / "predictions.json"
            if not _done(marker, key):
                checkpoint, device = Checkpoint.read(folder), config["training"]["device"]
                name = f"{task} {node.folder} {stage} fold {fold} seed {seed}"
                said: list[str] = []
                table = predict(checkpoint, cohort, definition, fold, device=device, log=said.append)
                _write(folder / PREDICTIONS, table)
                rows = zip(table["patient_id"], table["split"], strict=True)
                tested = [patient for patient, split in rows if split == TEST]
                files = [PREDICTIONS, *_extras(folder, checkpoint, cohort, tested, device, trained["figures"])]
                if mapped:
                    files += _map(folder, checkpoint, cohort, tested, device)
                made = {"key": key, "outputs": {name: file_digest(folder / name) for name in files}}
                write_json(marker, sign(results, made))
                for line in (*said, f"{len(table['patient_id'])} patients"):
                    log(f"{name}: {line}")
            place = folder.relative_to(results).as_posix()
            outputs |= {f"{place}/{name}": value for name, value in read_json(marker)["outputs"].items()}
    receipt = {"stage": "predict", "task": task, "recipe": recipe("predict", config, task=task), "outputs": outputs}
    name = receipt_name or f"predict-{task}{f'.{variant}' if variant else ''}.json"
    receipt = sign(results, receipt)
    write_json(results / "receipts" / name, receipt)
    return receipt


def _done(marker: Path, key: str) -> bool:
    if not marker.exists():
        return False
    done = read_json(marker)
    return done["key"] == key and all((marker.parent / name).exists() for name in done["outputs"])


def _map(folder: Path, checkpoint: Checkpoint, cohort: Cohort, patients: list[str], device: str) -> tuple[str, ...]:
    """Write the maps of some patients; returns the files' names."""
    outputs = each_output(checkpoint, cohort, patients, device=device)
    maps.write(folder, bags_of(checkpoint, cohort, patients), patients, checkpoint.arguments["subspaces"], outputs)
    return maps.TILES, maps.TOKENS


def _extras(
    folder: Path, checkpoint: Checkpoint, cohort: Cohort, patients: list[str], device: str, figures: dict[str, Any]
) -> list[str]:
    """Write what else a network says of some patients; returns the files' names."""
    if checkpoint.kind not in EXTRAS:
        return []
    from histill.methods import extras

    outputs = each_output(checkpoint, cohort, patients, device=device)
    number = bags_of(checkpoint, cohort, patients).patient
    tables = extras.tables(checkpoint, patients, number, outputs, figures.get("few_shot", []))
    for name, table in tables.items():
        _write(folder / name, table)
    return list(tables)


def predict(
    checkpoint: Checkpoint,
    cohort: Cohort,
    task: Task,
    fold: int,
    *,
    device: str = "auto",
    log: Callable[[str], None] = print,
) -> dict[str, list]:
    """Columns of a prediction table for every patient that has what the model reads.

    A patient with a slide but no valid tile at any magnification of the model is left out, and named in the log.
    `imputed_genes`, of models that read transcriptomes, counts a patient's genes that were not measured and stand at
    the training mean. `risk` orders patients; `s:<time>` columns hold their probability to be free of the event beyond
    the end of each interval that has one, in units of the time column.
    """
    needs = READS[checkpoint.kind]
    patients = sorted(
        patient
        for patient in cohort.patients["patient_id"]
        if ("slide" not in needs or cohort.value(patient, "has_slide"))
        and ("rna" not in needs or cohort.value(patient, "has_rna"))
    )
    if "slide" in needs:
        reader = _reader(checkpoint, cohort)
        bare = [patient for patient in patients if not reader.has_tiles(patient)]
        patients = sorted(set(patients) - set(bare))
        if bare:
            log(f"not predicted, as there is no valid tile of them: {', '.join(bare)}")
    if not checkpoint.arguments:
        values, curves = _predict_linear(checkpoint, cohort, patients)
    else:
        values, curves = _predict_network(checkpoint, cohort, patients, device)
    table: dict[str, list] = {
        "patient_id": patients,
        "split": [cohort.split(task, fold, patient) for patient in patients],
        "modalities": ["+".join(needs)] * len(patients),
    }
    if "rna" in needs:
        table["imputed_genes"] = cohort.expression.imputed(patients, checkpoint.expression)
    if task.type == "survival":
        table["risk"] = values[:, 0].tolist()
        ends = checkpoint.labels.edges.tolist()
        table.update({f"{SURVIVAL}{end!r}": curves[:, index].tolist() for index, end in enumerate(ends)})
    else:
        table.update({f"p:{name}": values[:, index].tolist() for index, name in enumerate(checkpoint.labels.classes)})
    return table


def network_outputs(checkpoint: Checkpoint, cohort: Cohort, patients: list[str], *, device: str = "auto") -> dict:
    """Raw outputs of a network, bag by bag with every tile: name -> level -> tensor [I, ...].

    Names are `logits`, `present`, and by subspace `features:<subspace>` and `seen:<subspace>`, as far as it has them.
    """
    import torch

    collected: dict[str, dict[str, list]] = {}
    for output in each_output(checkpoint, cohort, patients, device=device):
        wanted = {"logits": output["logits"], "present": output["present"]}
        for name in ("features", "seen"):
            wanted |= {f"{name}:{k}": by_level for k, by_level in output.get(name, {}).items()}
        for name, by_level in wanted.items():
            for level, value in by_level.items():
                collected.setdefault(name, {}).setdefault(level, []).append(value.cpu())
    return {name: {level: torch.cat(parts) for level, parts in levels.items()} for name, levels in collected.items()}


def each_output(
    checkpoint: Checkpoint, cohort: Cohort, patients: list[str], *, device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """What a network says of each bag with every tile, on its device, and `present`: level -> bool [1].

    A bag is a patient, or a slide for networks that were trained on single slides (`histill.data.bags.Instances`).
    Levels are those of the logits.
    """
    import torch

    from histill.data.module import BagDataset, collate
    from histill.device import lease

    network = checkpoint.network()
    targets = {}
    if "rna" in READS[checkpoint.kind]:
        genes = cohort.expression.transformed(patients, checkpoint.expression)
        targets = {subspace: torch.from_numpy(rows) for subspace, rows in genes.items()}
    if checkpoint.kind in BORROWING:
        targets[CASE] = torch.from_numpy(cohort.codes(patients))
    instances = bags_of(checkpoint, cohort, patients)
    targets = {name: rows[instances.patient] for name, rows in targets.items()}
    dataset = BagDataset(instances, checkpoint.scalers, targets)
    with lease(device) as where:
        network.to(where)
        for index in range(len(dataset)):
            batch = _move(collate([dataset[index]]), where)
            own = batch.pop("targets")
            batch |= {CASE: own.pop(CASE)} if CASE in own else {}
            batch |= {"genes": own} if own else {}
            present = {level: mask.any(dim=-1) for level, mask in batch["mask"].items()}
            with torch.inference_mode():
                output = network(batch)
            # A network that reads no tiles, or all magnifications at once, has logits at a level of its own.
            there = torch.stack([*present.values()] or [torch.ones(1, dtype=torch.bool, device=where)]).any(dim=0)
            yield {**output, "present": {level: present.get(level, there) for level in output["logits"]}}


def bags_of(checkpoint: Checkpoint, cohort: Cohort, patients: list[str]) -> Instances:
    """The bags that a network reads of some patients, at the magnifications it was trained on."""
    slides = checkpoint.provenance.get("slides", "bag") if checkpoint.scalers else "bag"
    return Instances.of(_reader(checkpoint, cohort), patients, slides)


def _reader(checkpoint: Checkpoint, cohort: Cohort) -> BagReader:
    """Bags as a model reads them; what is no network reads those of the whole cohort as they are."""
    if not checkpoint.arguments:
        return cohort.bags
    return cohort.bags.at({level: len(scaler.mean_) for level, scaler in checkpoint.scalers.items()})


def _move(value, device):
    return {k: _move(v, device) for k, v in value.items()} if isinstance(value, dict) else value.to(device)


def _predict_network(
    checkpoint: Checkpoint, cohort: Cohort, patients: list[str], device: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Risks [I, 1] and survival [I, E] at the ends of the intervals, or class probabilities [I, C] and None."""
    import torch

    from histill.methods.outputs import fuse, risk, survival
    from histill.methods.slides import mean_over_slides

    outputs = network_outputs(checkpoint, cohort, patients, device=device)
    of_time = checkpoint.labels.task.type == "survival"
    rule = checkpoint.arguments.get("magnifications", "mean")
    fused = fuse(outputs["logits"], outputs["present"], of_time, rule=rule)
    present = torch.stack(list(outputs["present"].values())).any(dim=0)
    patient = torch.from_numpy(bags_of(checkpoint, cohort, patients).patient)
    fused = mean_over_slides(fused, present, patient)
    if not of_time:
        return fused.double().numpy(), None
    return risk(fused).unsqueeze(1).double().numpy(), survival(fused)[:, :-1].double().numpy()


def _predict_linear(
    checkpoint: Checkpoint, cohort: Cohort, patients: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """As `_predict_network`, of models that are no network."""
    from histill.methods.baselines.linear import LinearModel

    inputs = linear_inputs(cohort, patients, READS[checkpoint.kind], checkpoint.expression)
    if checkpoint.kind == "retrieval":
        from histill.methods.baselines.retrieval import RetrievalModel

        model, own = RetrievalModel.from_state(checkpoint.weights), {"cases": cohort.codes(patients)}
    else:
        model, own = LinearModel.from_state(checkpoint.weights), {}
    curves = model.survival(inputs, **own) if checkpoint.labels.task.type == "survival" else None
    return model.predict(inputs, **own), curves


def _write(path: Path, table: dict[str, list]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as part:
        pq.write_table(pa.table(table), part)
