"""MSRL on a cohort: what borrowed genes are worth to a slide, part by part, against linear models and other controls.

    python benchmarks/msrl.py --config luad.yaml --out FOLDER [--seeds 5] [--variants student slide ...] [--permute]
        [--hide 0 0.3 0.6 0.9] [--hide-seeds 3]

Prepares the cohort once, trains every variant in every fold and under every seed, and prints for the test patients

- each variant's metric with a 95 % interval of patients (bootstrap within folds, the same resamples for all variants),
  and each seed's value on its own;
- differences between variants on the same patients, folds and seeds, with the interval of patients and the range over
  seeds;
- with `--hide`, the student and the linear model of both modalities when so large a share of the training patients has
  no transcriptome.

`--permute` also trains the student on transcriptomes that are permuted over the patients: what it then has over the
model without genes (MSRL_H) does not come from genes. The expression table must be a parquet file with a row a patient.

Tables are also in `FOLDER/tables.md`. What is trained is kept in FOLDER, which is of one config, and not trained again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq

from histill import config as configuration
from histill.cohort import sheets as sampling
from histill.cohort import stage as cohort_stage
from histill.cohort.tasks import Task
from histill.data.expression_table import ExpressionTable
from histill.data.fold import Cohort
from histill.evaluation.predictions import Model, read_outcomes, read_predictions
from histill.evaluation.scoring import METRICS, Scores, score
from histill.features import imports
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.provenance import atomic_file, digest
from histill.stages import MODELS, PRETRAIN, model_recipe, task_of
from histill.transcriptome import stage as transcriptome_stage

DRAWS, CONFIDENCE = 1000, 0.95
_NO_GRAPH = {"model": {"neighbours": 0}, "student": {"lambda_graph": 0.0, "lambda_structure": 0.0}}


@dataclass(frozen=True)
class Variant(Model):
    """A row of the tables: a stage of a method under options of its own.

    Attributes
    ----------
    title
        What the tables call it.
    options
        Sections of `methods.msrl`, and the keys in which they differ from the config.
    hidden
        Share of the training patients without transcriptomes; None: as the config has it.
    permuted
        Whether the transcriptomes are permuted over the patients.
    """

    title: str = ""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    hidden: float | None = None
    permuted: bool = False

    @property
    def name(self) -> str:
        return self.title

    def configure(self, config: dict[str, Any]) -> dict[str, Any]:
        """The config of the variant, complete."""
        own = {key: {**config["methods"]["msrl"][key], **keys} for key, keys in self.options.items()}
        methods = {**config["methods"], "msrl": {**config["methods"]["msrl"], **own}}
        training = config["training"] if self.hidden is None else {**config["training"], "hide_rna": self.hidden}
        return configuration.complete({**config, "methods": methods, "training": training})


Pairs = Sequence[tuple[str, str]]  # keys of the rows that are compared: the first less the second
VARIANTS = {
    "ridge-slide": Variant("linear-slide", "train", "ridge Cox on PCA, slide"),
    "ridge-rna": Variant("linear-rna", "train", "ridge Cox on PCA, RNA"),
    "ridge-both": Variant("linear-both", "train", "ridge Cox on PCA, both"),
    "wsi-only": Variant("wsi-only", "train", "wsi-only"),
    "retrieval": Variant("retrieval", "train", "retrieval average"),
    "slide": Variant("msrl", "slide", "MSRL_H (no genes anywhere)"),
    "slide-random": Variant("msrl", "slide", "MSRL_H, not pre-trained", {"student": {"begin": "random"}}),
    "no-graph": Variant("msrl", "student", "MSRL, no graph", _NO_GRAPH),
    "no-pretraining": Variant("msrl", "student", "MSRL, no pre-training", {"student": {"begin": "random"}}),
    "student": Variant("msrl", "student", "MSRL student"),
    "both": Variant("msrl", "both", "MSRL_multi (own genes at test)"),
    "cosine": Variant("msrl", "student", "MSRL, cosine graph", {"model": {"graph": "cosine"}}),
    "euclidean": Variant("msrl", "student", "MSRL, Euclidean graph", {"model": {"graph": "euclidean"}}),
    "no-unit": Variant("msrl", "student", "MSRL, lengths kept", {"model": {"unit": False}}),
    "cosine-no-unit": Variant(
        "msrl", "student", "MSRL, cosine graph, lengths kept", {"model": {"graph": "cosine", "unit": False}}
    ),
    "euclidean-no-unit": Variant(
        "msrl", "student", "MSRL, Euclidean graph, lengths kept", {"model": {"graph": "euclidean", "unit": False}}
    ),
    "online": Variant("msrl", "student", "MSRL, buffer from the online branch", {"student": {"update": "online"}}),
    "all-links": Variant(
        "msrl", "student", "MSRL, links among all, first in first out", {"model": {"links": "all", "policy": "fifo"}}
    ),
}
PERMUTED = Variant("msrl", "student", "MSRL student, genes permuted", permuted=True)
DIFFERENCES = (
    ("student", "slide"),
    ("slide", "slide-random"),
    ("student", "no-graph"),
    ("student", "no-pretraining"),
    ("both", "student"),
    ("both", "ridge-both"),
    ("student", "ridge-slide"),
    ("student", "wsi-only"),
    ("student", "retrieval"),
    *(
        ("student", other)
        for other in ("cosine", "euclidean", "no-unit", "cosine-no-unit", "euclidean-no-unit", "online", "all-links")
    ),
    ("permuted", "slide"),
    ("student", "permuted"),
)


def hiding(shares: list[float]) -> dict[str, Variant]:
    """The rows of the curve: both models at every share."""
    rows = {}
    for share in shares:
        rows[f"student {share:g}"] = Variant("msrl", "student", f"MSRL student, {share:.0%} hidden", hidden=share)
        rows[f"ridge {share:g}"] = Variant(
            "linear-both", "train", f"ridge Cox on both, {share:.0%} hidden", hidden=share
        )
    return rows


class Experiment:
    """A cohort, prepared twice at most (true and permuted pairs), and what was trained on it.

    Variants with the same options have one results folder. It links to the prepared cohort, and to the pre-training
    that fits it: folders with one recipe of pre-training share it.
    """

    def __init__(self, path: Path, out: Path, seeds: int):
        self._config = configuration.read(path)
        self._out, self.seeds = out.absolute(), list(range(seeds))
        self.task = next(iter(self._config["tasks"]))
        self._prepared: dict[bool, dict[str, Any]] = {}

    def prepared(self, permuted: bool) -> dict[str, Any]:
        """The complete config of the cohort, whose stages before training have been run."""
        if permuted not in self._prepared:
            results = self._out / ("permuted" if permuted else "true") / "prepared"
            config = {**self._config, "results": str(results), "seeds": self.seeds}
            if permuted:
                expression = permute(
                    Path(config["cohort"]["expression"]), self._out / "permuted" / "expression.parquet"
                )
                config["cohort"] = {**config["cohort"], "expression": str(expression)}
            config = configuration.complete(config)
            if not (results / "receipts" / "cohort.json").exists():
                sheets = sampling.load(config)
                imports.run(config=config, results=results, sheets=sheets)
                transcriptome_stage.run(path=sheets.expression, config=config, results=results)
                cohort_stage.run(sheets=sheets, config=config, results=results)
            self._prepared[permuted] = config
        return self._prepared[permuted]

    def run(self, variant: Variant, seeds: list[int]) -> Path:
        """Train and predict a variant; returns its results folder."""
        prepared = self.prepared(variant.permuted)
        config = {**variant.configure(prepared), "seeds": seeds}
        base = Path(prepared["results"])
        results = base.parent / digest([config["methods"], config["training"]["hide_rna"]])[:12]
        self._link(base, results, config)
        for stage in _stages(variant):
            task = task_of(variant.method, stage, self.task)
            train.run(task=task, method=variant.method, stage=stage, config=config, results=results, log=_quiet)
        self._predict(variant, config, results)
        return results

    def _link(self, base: Path, results: Path, config: dict[str, Any]) -> None:
        pretrained = base.parent / "pretrained" / model_recipe("msrl", "pretrain", config, task=PRETRAIN)[:12]
        pretrained.mkdir(parents=True, exist_ok=True)
        (results / "models").mkdir(parents=True, exist_ok=True)
        places = {**{results / part.name: part for part in base.iterdir()}, results / "models" / PRETRAIN: pretrained}
        for link, target in places.items():
            if not link.is_symlink():
                link.symlink_to(target)

    def _predict(self, variant: Variant, config: dict[str, Any], results: Path) -> None:
        task = Task.from_config(self.task, config["tasks"][self.task])
        table = ExpressionTable.read(results, config) if "rna" in variant.inputs else None
        cohort = Cohort.read(results, config["features"]["encoder"], table)
        for fold, seed in train.runs(config, results):
            path = variant.path(results, self.task, fold, seed)
            if path.exists() and path.stat().st_mtime > (path.parent / "receipt.json").stat().st_mtime:
                continue
            said = predict.predict(
                Checkpoint.read(path.parent), cohort, task, fold, device=config["training"]["device"], log=_quiet
            )
            with atomic_file(path) as part:
                pq.write_table(pa.table(said), part)

    def score(self, variants: list[Variant], places: list[Path], seeds: list[int]) -> Scores:
        """Score variants on the patients that all of them predicted."""
        prepared = self.prepared(False)
        results, kind = Path(prepared["results"]), prepared["tasks"][self.task]["type"]
        outcomes = read_outcomes(results, self.task, kind)
        models = [
            read_predictions(place, self.task, variant, outcomes, seeds)
            for variant, place in zip(variants, places, strict=True)
        ]
        patients = set.intersection(*(predictions.patients() for predictions in models))
        return score(models, patients, outcomes, seeds, DRAWS, prepared["evaluation"]["seed"])


def _stages(variant: Variant) -> Iterator[str]:
    """What must be trained, first things first."""
    for name in MODELS[variant.method][variant.stage].after:
        yield from _stages(Model(variant.method, name))
    yield variant.stage


def permute(path: Path, to: Path) -> Path:
    """Write an expression table whose rows are those of other patients."""
    if not to.exists():
        table = pandas.read_parquet(path)
        order = np.random.default_rng(0).permutation(len(table))
        to.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(to) as part:
            table.iloc[order].set_axis(table.index).to_parquet(part)
    return to


def _quiet(_: str) -> None:
    """Progress of single runs is no result."""


def tables(rows: dict[str, Variant], scores: Scores, key: str, pairs: Pairs) -> Iterator[str]:
    """Lines of Markdown: what the variants reached, then their differences."""
    estimates = {name: scores.estimates[variant.name][key] for name, variant in rows.items()}
    reads = {name: variant.inputs.replace("+", ", ").replace("rna", "RNA") for name, variant in rows.items()}
    yield "| model | reads | value | by seed |"
    yield "|---|---|---|---|"
    for name, estimate in estimates.items():
        low, high = estimate.interval(CONFIDENCE)
        seeds = " ".join(f"{value:.3f}" for value in estimate.seeds.values())
        yield f"| {rows[name].title} | {reads[name]} | {estimate.value:.3f} ({low:.3f} to {high:.3f}) | {seeds} |"
    yield ""
    yield "| difference | value | over seeds |"
    yield "|---|---|---|"
    for first, second in pairs:
        if {first, second} <= estimates.keys():
            difference = estimates[first] - estimates[second]
            low, high = difference.interval(CONFIDENCE)
            seeds = difference.seeds.values()
            spread = f"{min(seeds):+.3f} to {max(seeds):+.3f}" if len(seeds) > 1 else "one seed"
            text = f"{difference.value:+.3f} ({low:+.3f} to {high:+.3f}) | {spread} |"
            yield f"| {rows[first].title} − {rows[second].title} | {text.replace('-', '−')}"
    yield ""


def measure(
    experiment: Experiment, heading: str, rows: dict[str, Variant], seeds: list[int], pairs: Pairs
) -> Iterator[str]:
    """Train what is missing of the rows, and score all of them together."""
    places = []
    for variant in rows.values():
        start = time.monotonic()
        places.append(experiment.run(variant, seeds))
        print(f"{variant.title}: {time.monotonic() - start:.0f} s", flush=True)
    scores = experiment.score(list(rows.values()), places, seeds)
    metric = METRICS[experiment.prepared(False)["tasks"][experiment.task]["type"]][0]
    patients = sum(map(len, scores.patients.values()))
    yield f"### {heading}: {metric.name}, {patients} patients, {len(scores.patients)} folds, {len(seeds)} seeds"
    yield ""
    yield from tables(rows, scores, metric.key, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="Folder to keep.")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--permute", action="store_true", help="Also the student on permuted transcriptomes.")
    parser.add_argument("--hide", nargs="+", type=float, default=[], help="Shares of the training patients.")
    parser.add_argument("--hide-seeds", type=int, default=3)
    given = parser.parse_args()
    experiment = Experiment(given.config, given.out, max(given.seeds, given.hide_seeds))
    rows = {name: VARIANTS[name] for name in given.variants}
    if given.permute:
        rows["permuted"] = PERMUTED
    lines = list(measure(experiment, experiment.task, rows, experiment.seeds[: given.seeds], DIFFERENCES))
    if given.hide:
        curve, seeds = hiding(given.hide), experiment.seeds[: given.hide_seeds]
        pairs = [(name, next(iter(curve))) for name in curve if name.startswith("student")][1:]
        lines += measure(experiment, f"{experiment.task}, transcriptomes hidden", curve, seeds, pairs)
    (given.out / "tables.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
