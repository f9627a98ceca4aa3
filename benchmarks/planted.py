"""Does distillation help where it must, and only there? Teacher, student and baselines on the planted cohort.

    python benchmarks/planted.py [--seeds 5] [--folds 3] [--tasks survival diagnosis] [--methods disentangled ...]
        [--set methods.disentangled.model.dim=64 ...] [--validation] [--cohort-seed 0] [--jobs 2] [--out FOLDER]

Makes the cohort (`histill demo planted`), and a second one whose transcriptomes are permuted over the patients, trains
and predicts, and prints for each task

- every model's metric, with a 95 % interval of patients (bootstrap within folds, mean over seeds and folds);
- the difference student - wsi-only on the same patients, folds and seeds, with the interval of patients and that of
  seeds (Student's t over the seeds' means), for the true pairs and for the permuted ones;
- how well tiles were told apart without any label: adjusted Rand index (Hubert and Arabie 1985) of tumour and
  microenvironment tiles, and of these and the others.

A tile goes to the subspace whose weight on it, relative to the mean of its slide, is largest; where no subspace gives
it more than the mean, it is one of the others. A student's soft assignment knows no others.

With `--validation` the inner validation patients are scored in place of the test patients. They also stop training
early, and linear models train on them and are left out. Use them, or another `--cohort-seed`, to develop; the test
patients of cohort 0 are for what is reported.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from scipy import stats
from sklearn.metrics import adjusted_rand_score

from histill import config as configuration
from histill.cohort import sheets as sampling
from histill.cohort import stage as cohort_stage
from histill.data.expression_table import ExpressionTable
from histill.data.fold import TEST, VALIDATION, Cohort
from histill.demo.planted import make, slide_id
from histill.evaluation.intervals import percentile_interval
from histill.evaluation.predictions import Outcomes, Predictions, expected_models, read_outcomes
from histill.evaluation.scoring import METRICS, Scores, score
from histill.features.store import write_store
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.stages import MODELS
from histill.subspaces import SUBSPACES
from histill.transcriptome import stage as transcriptome_stage

STUDENT, ALONE = "disentangled student", "wsi-only"
DRAWS, CONFIDENCE = 2000, 0.95
DISTILLED = ("disentangled", "wsi-only")  # what is trained on permuted transcriptomes


def prepare(folder: Path, given: argparse.Namespace, *, methods: list[str], permute_genes: bool) -> dict[str, Any]:
    """Make a cohort in `folder`, run the stages before training, and return its config."""
    make(
        folder,
        write_store,
        patients=given.patients,
        tiles=given.tiles,
        dim=given.dim,
        seed=given.cohort_seed,
        permute_genes=permute_genes,
    )
    config = configuration.read(folder / "config.yaml")
    config["seeds"] = list(range(given.seeds))
    config["methods"]["run"] = methods
    for key, value in [("folds.n", given.folds), *given.set]:
        *path, last = key.split(".")
        place = config
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    config = configuration.complete(config)
    results, sheets = Path(config["results"]), sampling.load(config)
    transcriptome_stage.run(path=sheets.expression, config=config, results=results)
    cohort_stage.run(sheets=sheets, config=config, results=results)
    return config


def train_all(config: dict[str, Any], tasks: list[str], jobs: int) -> None:
    """Train and predict everything of `methods.run`, several folds and seeds at a time."""
    runs = train.runs(config, config["results"])
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_threads, initargs=(jobs,)) as pool:
        work = [pool.submit(_train, config, task, only) for task in tasks for only in runs]
        for done in work:
            done.result()
        for done in [pool.submit(_predict, config, task) for task in tasks]:
            done.result()


def _threads(jobs: int) -> None:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _train(config: dict[str, Any], task: str, only: tuple[int, int]) -> None:
    for method in config["methods"]["run"]:
        for stage in MODELS[method]:
            train.run(
                task=task, method=method, stage=stage, config=config, results=config["results"], only=only, log=_quiet
            )


def _predict(config: dict[str, Any], task: str) -> None:
    predict.run(task=task, config=config, results=config["results"], log=_quiet)


def _quiet(_: str) -> None:
    """Progress of single runs is no result."""


def split_scores(config: dict[str, Any], task: str, split: str) -> Scores:
    """Scores of all models on the patients of a split; a patient counts once in every fold that has it there."""
    results, kind = Path(config["results"]), config["tasks"][task]["type"]
    known = read_outcomes(results, task, kind)
    outcomes = Outcomes(kind, {}, {}, known.classes)
    models = []
    for model in expected_models(config):
        predictions = Predictions(model)
        for fold, seed in train.runs(config, results):
            rows = _read_split(model.path(results, task, fold, seed), split, known)
            members = {f"{fold}/{patient}": value for patient, value in rows.items()}
            predictions.test[fold, seed] = members
            for member, patient in zip(members, rows, strict=True):
                outcomes.values[member], outcomes.assignment[member] = known.values[patient], [fold]
        models.append(predictions)
    return score(models, set(outcomes.values), outcomes, config["seeds"], DRAWS, 0)


def _read_split(path: Path, split: str, known: Outcomes) -> dict[str, np.ndarray]:
    table = pq.read_table(path).to_pydict()
    columns = [f"p:{name}" for name in known.classes] or ["risk"]
    values = np.column_stack([table[name] for name in columns])
    rows = zip(table["patient_id"], table["split"], values, strict=True)
    return {patient: value for patient, own, value in rows if own == split and patient in known.values}


def interval_of_seeds(values: list[float]) -> tuple[float, float]:
    """Student's t interval of the mean of one value a seed."""
    values = np.asarray(values)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def agreement(config: dict[str, Any], folder: Path, task: str, stage: str, split: str) -> list[tuple[str, ...]]:
    """Rows (map, magnification, index of two kinds, of three) of a network's tiles, means over folds and seeds."""
    results = Path(config["results"])
    table = ExpressionTable.read(results, config) if stage == "teacher" else None
    cohort = Cohort.read(results, config["features"]["encoder"], table)
    truth = read_truth(folder / "truth.parquet")
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for fold, seed in train.runs(config, results):
        run = train.run_folder(results, task, "disentangled", stage, fold, seed)
        rows = pq.read_table(run / "predictions.parquet", columns=["patient_id", "split"]).to_pydict()
        patients = [p for p, own in zip(rows["patient_id"], rows["split"], strict=True) if own == split]
        for (kind, level), weights in tile_maps(Checkpoint.read(run), cohort, patients).items():
            clusters = np.concatenate([truth[slide_id(patient), level] for patient in patients])
            two, three = rand_indices(weights, clusters)
            found.setdefault((kind, level), []).append((two, three if kind == "attention" else np.nan))
    return [
        (*key, *("" if np.isnan(value) else f"{value:.3f}" for value in np.mean(values, axis=0)))
        for key, values in found.items()
    ]


def read_truth(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """(slide, magnification) -> cluster [N] of its tiles, by row of the store's group."""
    table = pq.read_table(path).to_pandas()
    return {
        key: rows.sort_values("tile")["cluster"].to_numpy() for key, rows in table.groupby(["slide", "magnification"])
    }


def tile_maps(checkpoint: Checkpoint, cohort: Cohort, patients: list[str]) -> dict[tuple[str, str], np.ndarray]:
    """(map, magnification) -> what every tile of the patients, in their order, weighs in each subspace [N, K].

    Maps are `attention`, relative to its mean over the slide, and of a student `assignment`. Patients have one slide.
    """
    import torch

    from histill.data.module import BagDataset, collate

    network, targets = checkpoint.network(), {}
    if checkpoint.expression is not None:
        genes = cohort.expression.transformed(patients, checkpoint.expression)
        targets = {subspace: torch.from_numpy(rows) for subspace, rows in genes.items()}
    dataset = BagDataset(predict.bags_of(checkpoint, cohort, patients), checkpoint.scalers, targets)
    maps: dict[tuple[str, str], list[np.ndarray]] = {}
    for index in range(len(dataset)):
        batch = collate([dataset[index]])
        batch["genes"] = batch.pop("targets")
        with torch.inference_mode():
            output = network(batch)
        if set(output["attention"]) != set(SUBSPACES):  # a single joint subspace tells no tiles apart
            return {}
        for level in cohort.bags.levels:
            attention = torch.stack([output["attention"][k][level][0] for k in SUBSPACES], dim=-1)
            maps.setdefault(("attention", level), []).append((attention / attention.mean(dim=0)).numpy())
        for level, assignment in output.get("assignment", {}).items():
            maps.setdefault(("assignment", level), []).append(assignment[0].numpy())
    return {key: np.concatenate(parts) for key, parts in maps.items()}


def rand_indices(weights: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Adjusted Rand index of tumour and microenvironment tiles alone, and of all three kinds.

    Parameters
    ----------
    weights
        [N, 2], relative to the mean. A tile below the mean in both is one of the others.
    clusters
        [N] true names.
    """
    best = weights.argmax(axis=1)
    own = np.isin(clusters, SUBSPACES)
    three = np.where(weights.max(axis=1) < 1, len(SUBSPACES), best)
    return adjusted_rand_score(clusters[own], best[own]), adjusted_rand_score(clusters, three)


def report(config: dict[str, Any], permuted: dict[str, Any] | None, task: str, split: str, folder: Path) -> None:
    """Print the tables of a task."""
    metric = METRICS[config["tasks"][task]["type"]][0]
    scores = {"true pairs": split_scores(config, task, split)}
    if permuted:
        scores["permuted"] = split_scores(permuted, task, split)
    patients = sum(map(len, scores["true pairs"].patients.values()))
    print(f"\n### {task}: {metric.name}, {split} patients ({patients})\n")
    print("| transcriptomes | model | value | 95 % of patients | by seed |\n|---|---|---|---|---|")
    for pairs, own in scores.items():
        for name, by_metric in own.estimates.items():
            estimate = by_metric[metric.key]
            low, high = estimate.interval(CONFIDENCE)
            seeds = " ".join(f"{value:.3f}" for value in estimate.seeds.values())
            print(f"| {pairs} | {name} | {estimate.value:.3f} | {low:.3f} to {high:.3f} | {seeds} |")
    print(f"\n| transcriptomes | {STUDENT} - {ALONE} | 95 % of patients | 95 % of seeds |\n|---|---|---|---|")
    for pairs, own in scores.items():
        if {STUDENT, ALONE} <= own.estimates.keys():
            student, alone = (own.estimates[name][metric.key] for name in (STUDENT, ALONE))
            low, high = percentile_interval(student.draws - alone.draws, CONFIDENCE)
            by_seed = [student.seeds[seed] - alone.seeds[seed] for seed in config["seeds"]]
            bounds = "{:+.3f} to {:+.3f}".format(*interval_of_seeds(by_seed)) if len(by_seed) > 1 else "one seed"
            print(f"| {pairs} | {student.value - alone.value:+.3f} | {low:+.3f} to {high:+.3f} | {bounds} |")
    if "disentangled" in config["methods"]["run"]:
        print("\n| network | map | magnification | ARI of two | ARI of three |\n|---|---|---|---|---|")
        for stage in MODELS["disentangled"]:
            for row in agreement(config, folder, task, stage, split):
                print(f"| {stage} | {' | '.join(row)} |")


def setting(text: str) -> tuple[str, Any]:
    """`key=value` of the command line; the value as YAML reads it."""
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key, yaml.safe_load(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=["survival", "diagnosis"], choices=["survival", "diagnosis"])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["disentangled", "wsi-only", "linear-slide", "linear-rna", "linear-both", "abmil"],
        choices=list(MODELS),
    )
    parser.add_argument("--set", nargs="+", type=setting, default=[], metavar="key=value")
    parser.add_argument("--validation", action="store_true", help="Score the inner validation patients.")
    parser.add_argument("--no-permuted", action="store_true", help="Leave the permuted cohort out.")
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--tiles", type=int, default=160)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--cohort-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="Runs at a time.")
    parser.add_argument("--out", type=Path, default=None, help="Folder to keep; a temporary one without it.")
    given = parser.parse_args()
    split = VALIDATION if given.validation else TEST
    methods = [name for name in given.methods if not (given.validation and name.startswith("linear"))]
    with tempfile.TemporaryDirectory() as temporary:
        folder, start = given.out or Path(temporary), time.monotonic()
        config = prepare(folder / "true", given, methods=methods, permute_genes=False)
        train_all(config, given.tasks, given.jobs)
        permuted = None
        if set(DISTILLED) <= set(methods) and not given.no_permuted:
            permuted = prepare(folder / "permuted", given, methods=list(DISTILLED), permute_genes=True)
            for task in given.tasks:  # a model of slides is the same; its receipts are checked
                alone = Path("models") / task / ALONE
                shutil.copytree(Path(config["results"]) / alone, Path(permuted["results"]) / alone, dirs_exist_ok=True)
            train_all(permuted, given.tasks, given.jobs)
        print(f"{given.patients} patients, {given.folds} folds, {given.seeds} seeds: {time.monotonic() - start:.0f} s")
        for task in given.tasks:
            report(config, permuted, task, split, folder / "true")


if __name__ == "__main__":
    main()
