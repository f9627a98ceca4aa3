"""The training stages: for one task, method and stage, every fold and seed that is not yet done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.tasks import Task
from histill.data.bags import Instances
from histill.data.expression import ExpressionTransform
from histill.data.expression_table import ExpressionTable
from histill.data.fold import TRAIN, VALIDATION, Cohort, Labels, fit_expression, fit_features
from histill.errors import HistillError
from histill.methods import ablation
from histill.methods.checkpoint import Checkpoint
from histill.methods.progress import TrainingProgress
from histill.provenance import digest, read_json, write_json
from histill.stages import MODELS, READS, model_recipe

TRANSCRIPTOME = "transcriptome"  # what linear models read: every gene, as one set
UNFINISHED = "resume.safetensors"  # state of a run that is not done (`histill.methods.resume`)


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

    With a `variant` of the ablation (`histill.methods.ablation`), its own models are trained beside the method's.
    """
    results = Path(results)
    node = MODELS[method][stage]
    places = {name: ablation.folder(config, variant, method, name, task=task) for name in (stage, *node.after)}
    config = ablation.configure(config, variant)
    kind = node.kind
    # A distilled student reads the genes through its teacher, in training only.
    needs_genes = "rna" in node.reads or bool(node.after)
    table = ExpressionTable.read(results, config) if needs_genes else None
    cohort = Cohort.read(results, config["features"]["encoder"], table)
    inputs = {
        "cohort": read_json(results / "receipts" / "cohort.json")["outputs"],
        "features": read_json(results / "receipts" / "cohort.json")["features"] if "slide" in node.reads else None,
        "expression": _expression(results, table) if table else None,
    }
    recipe = model_recipe(method, stage, config, task=task)
    definition = Task.from_config(task, config["tasks"][task])
    chosen = [only] if only else runs(config, results)
    what, epochs = f"{task} {places[stage]} {stage}", config["training"]["model"]["epochs"]
    receipts = []
    with TrainingProgress(what, runs=len(chosen), epochs=epochs) as progress:
        for fold, seed in chosen:
            folder = run_folder(results, task, places[stage], stage, fold, seed)
            name, own, teacher = f"{what} fold {fold} seed {seed}", {**inputs}, None
            if node.after:
                teacher = run_folder(results, task, places["teacher"], "teacher", fold, seed)
                own["teacher"] = read_json(teacher / "receipt.json")["outputs"]
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
            context = _Run(definition, kind, fold, seed, cohort, config, folder, teacher)
            key = digest([recipe, own, config["training"]["devices"]])
            checkpoint, figures = context.train(key, name, progress, log)
            checkpoint.provenance = {"method": method, "stage": stage, "fold": fold, "seed": seed, "recipe": recipe}
            checkpoint.provenance["slides"] = config["training"]["slides"]
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
            write_json(folder / "receipt.json", receipt)
            for unfinished in (folder / UNFINISHED, folder / "labels" / UNFINISHED):
                unfinished.unlink(missing_ok=True)
            progress.done()
            log(f"{name}: {figures} ({seconds} s)")
            receipts.append(receipt)
    return receipts


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


class _Run:
    """One fold and seed."""

    def __init__(
        self,
        task: Task,
        kind: str,
        fold: int,
        seed: int,
        cohort: Cohort,
        config: dict,
        folder: Path,
        teacher: Path | None,
    ):
        self.task, self.kind, self.fold, self.seed = task, kind, fold, seed
        self.stream = 100_003 * seed + fold
        self.cohort, self.config, self.folder, self.teacher = cohort, config, folder, teacher
        modalities = READS[kind]
        self.wanted = {"slide": "slide" in modalities, "rna": "rna" in modalities}
        self.training = self._usable(TRAIN)
        self.validation = self._usable(VALIDATION)
        if len(self.training) < 4 or not self.validation:
            raise HistillError(
                f"task '{task.name}', fold {fold}: {len(self.training)} training and {len(self.validation)} validation "
                f"patients have {' and '.join(modalities)}; that is too few to train '{kind}'",
                mend="lower folds.n, or remove this method from methods.run",
            )

    def _usable(self, split: str) -> list[str]:
        """Patients of a split that have what the model reads; a slide without any valid tile is none."""
        chosen = self.cohort.select(self.task, self.fold, split, **self.wanted)
        has_tiles = self.cohort.bags.has_tiles
        return [patient for patient in chosen if not self.wanted["slide"] or has_tiles(patient)]

    def train(
        self, key: str, name: str, progress: TrainingProgress, log: Callable[[str], None]
    ) -> tuple[Checkpoint, dict[str, Any]]:
        """The trained model and figures for its receipt; `key` is what an unfinished run is known by."""
        if self.kind.startswith("linear"):
            return self._linear()
        return self._network(key, name, progress, log)

    def _linear(self) -> tuple[Checkpoint, dict[str, Any]]:
        from histill.methods.baselines.linear import LinearModel

        # The penalty is chosen by cross-validation, so the inner split is training data here.
        patients = sorted(self.training + self.validation)
        labels = Labels.fit(self.task, self.cohort, patients)
        targets = [self.cohort.label(self.task, patient) for patient in patients]
        expression = None
        if self.wanted["rna"]:
            genes = {TRANSCRIPTOME: {TRANSCRIPTOME: self.cohort.expression.genes}}
            expression = fit_expression(self.cohort, patients, genes, self.config)
        inputs = linear_inputs(self.cohort, patients, READS[self.kind], expression)
        model = LinearModel.fit(inputs, labels, targets, self.config["methods"]["linear"])
        figures = {"patients": len(patients), "alpha": model.alpha}
        return Checkpoint(self.kind, labels, {}, model.state(), {}, expression, {}), figures

    def _network(self, key: str, name: str, progress, log) -> tuple[Checkpoint, dict[str, Any]]:
        import lightning

        from histill.data.module import BagDataModule
        from histill.methods.checkpoint import build_network
        from histill.methods.trainer import Run, fit

        # One stream a run: a fold's result does not depend on which folds ran before it.
        lightning.seed_everything(self.stream, verbose=False)
        options = self.config["training"]["model"]
        # On all patients with a slide, whoever has RNA: a teacher and its student must mean the same by an interval.
        labels = Labels.fit(
            self.task, self.cohort, self.cohort.select(self.task, self.fold, TRAIN, slide=True, rna=False)
        )
        scalers = fit_features(self.cohort, self.training, seed=self.seed, log=log)
        expression = None
        if self.wanted["rna"]:
            from histill.methods.disentangled.training import gene_sets

            expression = fit_expression(self.cohort, self.training, gene_sets(self.config), self.config)
        arguments = self._arguments(labels, scalers, expression)
        network = build_network(self.kind, arguments)
        lessons = self._lessons() if self.teacher else None
        module = self._module(network, labels, lessons)
        data = BagDataModule(
            self._dataset(self.training, labels, scalers, expression, lessons, options["max_tiles"]),
            self._dataset(self.validation, labels, scalers, expression, lessons, None),
            batch_size=options["batch_size"],
            seed=self.stream,
        )
        run = Run(self.folder / UNFINISHED, key, self.stream, name, shared=self.folder.parents[3])
        if lessons is not None and self.config["methods"]["disentangled"]["student"]["begin"] == "labels":
            self._learn_labels(network, labels, data, run, progress, log)
        weights, figures = fit(module, data, self.config["training"], run, report=progress.at, log=log)
        figures = {"patients": len(self.training), **figures}
        return Checkpoint(self.kind, labels, arguments, weights, scalers, expression, {}), figures

    def _learn_labels(self, network, labels: Labels, data, run, progress, log) -> None:
        """Train a student on the labels alone before it is taught (published: specification §2.9, stage ii)."""
        import torch

        from histill.methods.trainer import fit

        before = self.folder / "labels" / UNFINISHED
        first = replace(run, state=before, key=f"{run.key}-labels", name=f"{run.name}, labels")
        module = self._module(network, labels, None)
        weights, _ = fit(module, data, self.config["training"], first, report=progress.at, log=log)
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})

    def _arguments(self, labels: Labels, scalers, expression) -> dict[str, Any]:
        from histill.methods.disentangled.training import arguments

        features = {level: len(scaler.mean_) for level, scaler in scalers.items()}
        if self.kind == "abmil":
            return {"features": features, "outputs": labels.outputs, **self.config["methods"]["abmil"]}
        return arguments(self.kind, self.config, labels, features, expression)

    def _module(self, network, labels: Labels, lessons):
        from histill.methods.disentangled.training import student_module, teacher_module
        from histill.methods.module import SupervisedModule

        options = self.config["training"]["model"]
        training = {"learning_rate": options["learning_rate"], "weight_decay": options["weight_decay"]}
        if self.kind == "teacher":
            return teacher_module(network, labels, self.config, training)
        if self.kind == "student":
            return student_module(network, labels, self.config, training, lessons)
        return SupervisedModule(network, labels, **training)

    def _lessons(self):
        from histill.methods.disentangled.training import Lessons

        device = self.config["training"]["device"]
        return Lessons.read(self.teacher, self.cohort, self.training, self.validation, device=device)

    def _dataset(self, patients: list[str], labels: Labels, scalers, expression, lessons, max_tiles: int | None):
        import torch

        from histill.data.module import BagDataset

        encoded = [labels.encode(self.cohort.label(self.task, patient)) for patient in patients]
        label, event = torch.tensor(encoded).T
        targets = {"label": label, "event": event}
        if expression is not None:
            genes = self.cohort.expression.transformed(patients, expression)
            targets.update({f"genes:{subspace}": torch.from_numpy(rows) for subspace, rows in genes.items()})
        # A magnification that the fold leaves out (`fit_features`) is in no bag of it.
        bags = self.cohort.bags.at({level: len(scaler.mean_) for level, scaler in scalers.items()})
        instances = Instances.of(bags, patients, self.config["training"]["slides"])
        targets = {name: rows[instances.patient] for name, rows in targets.items()}
        if lessons is not None:
            targets.update(lessons.targets(instances.names))
        return BagDataset(instances, scalers, targets, max_tiles=max_tiles, seed=self.stream)


def linear_inputs(
    cohort: Cohort, patients: list[str], modalities: tuple[str, ...], expression: ExpressionTransform | None
) -> dict[str, np.ndarray]:
    """Modality -> [P, F]: mean-pooled features, all genes after the fitted transform."""
    inputs = {}
    if "slide" in modalities:
        inputs["slide"] = np.stack([cohort.bags.mean(patient) for patient in patients])
    if "rna" in modalities:
        inputs["rna"] = cohort.expression.transformed(patients, expression)[TRANSCRIPTOME]
    return inputs
