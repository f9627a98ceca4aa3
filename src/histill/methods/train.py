"""The training stages: for one task, method and stage, every fold and seed that is not yet done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.tasks import Task
from histill.data.expression import ExpressionTransform
from histill.data.expression_table import ExpressionTable
from histill.data.fold import TRAIN, VALIDATION, Cohort, Labels, fit_expression, fit_features
from histill.errors import HistillError
from histill.methods.checkpoint import Checkpoint
from histill.provenance import digest, read_json, write_json
from histill.stages import MODELS, READS, model_recipe
from histill.subspaces import SUBSPACES

TRANSCRIPTOME = "transcriptome"  # what linear models read: every gene, as one set


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
    log=print,
) -> list[dict[str, Any]]:
    """Train all folds and seeds (or `only` one) and return their receipts; runs that fit are skipped."""
    results = Path(results)
    node = MODELS[method][stage]
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
    receipts = []
    for fold, seed in [only] if only else runs(config, results):
        folder = run_folder(results, task, method, stage, fold, seed)
        own = {**inputs}
        if node.after:
            teacher = run_folder(results, task, method, "teacher", fold, seed)
            own["teacher"] = read_json(teacher / "receipt.json")["outputs"]
        done = _receipt(folder)
        if done and (done["recipe"], done["inputs"]) == (recipe, own):
            log(f"{task} {method} {stage} fold {fold} seed {seed}: up to date")
            receipts.append(done)
            continue
        (folder / "receipt.json").unlink(missing_ok=True)
        start = time.perf_counter()
        context = _Run(Task.from_config(task, config["tasks"][task]), method, kind, fold, seed, cohort, config, folder)
        checkpoint, figures = context.train()
        checkpoint.provenance = {"method": method, "stage": stage, "fold": fold, "seed": seed, "recipe": recipe}
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
        log(f"{task} {method} {stage} fold {fold} seed {seed}: {figures} ({seconds} s)")
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
        self, task: Task, method: str, kind: str, fold: int, seed: int, cohort: Cohort, config: dict, folder: Path
    ):
        self.task, self.kind, self.fold, self.seed = task, kind, fold, seed
        self.cohort, self.config, self.folder = cohort, config, folder
        self.distils = (method, kind) == ("disentangled", "student")
        modalities = READS[kind]
        self.wanted = {"slide": "slide" in modalities, "rna": "rna" in modalities}
        self.training = cohort.select(task, fold, TRAIN, **self.wanted)
        self.validation = cohort.select(task, fold, VALIDATION, **self.wanted)
        if len(self.training) < 4 or not self.validation:
            raise HistillError(
                f"task '{task.name}', fold {fold}: {len(self.training)} training and {len(self.validation)} validation "
                f"patients have {' and '.join(modalities)}; that is too few to train '{kind}'",
                mend="lower folds.n, or remove this method from methods.run",
            )

    def train(self) -> tuple[Checkpoint, dict[str, Any]]:
        return self._linear() if self.kind.startswith("linear") else self._network()

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

    def _network(self) -> tuple[Checkpoint, dict[str, Any]]:
        import lightning

        from histill.data.module import BagDataModule
        from histill.methods.checkpoint import build_network
        from histill.methods.trainer import fit

        # One stream a run: a fold's result does not depend on which folds ran before it.
        lightning.seed_everything(100_003 * self.seed + self.fold, verbose=False)
        options = self.config["training"]["model"]
        labels = Labels.fit(self.task, self.cohort, self.training)
        scalers = fit_features(self.cohort, self.training, seed=self.seed)
        expression = None
        if self.wanted["rna"]:
            from histill.transcriptome.gene_sets import subspaces

            expression = fit_expression(self.cohort, self.training, subspaces(self.config), self.config)
        arguments = self._arguments(labels, scalers, expression)
        module = self._module(build_network(self.kind, arguments), labels)
        data = BagDataModule(
            self._dataset(self.training, labels, scalers, expression, options["max_tiles"]),
            self._dataset(self.validation, labels, scalers, expression, None),
            batch_size=options["batch_size"],
            seed=100_003 * self.seed + self.fold,
        )
        weights, figures = fit(
            module, data, options, device=self.config["training"]["device"], curve=self.folder / "curve.csv"
        )
        figures = {"patients": len(self.training), **figures}
        return Checkpoint(self.kind, labels, arguments, weights, scalers, expression, {}), figures

    def _arguments(self, labels: Labels, scalers, expression) -> dict[str, Any]:
        shared = {"features": {level: len(s.mean_) for level, s in scalers.items()}, "outputs": labels.outputs}
        methods = self.config["methods"]
        if self.kind == "abmil":
            return {**shared, **methods["abmil"]}
        model = dict(methods["disentangled"]["model"])
        if self.kind == "student":
            return {**shared, "dim": model["dim"], "dropout": model["dropout"]}
        genes = {subspace: len(names) for subspace, names in expression.genes_.items()}
        return {**shared, **model, "genes": genes, "members": expression.members_}

    def _module(self, network, labels: Labels):
        options = self.config["training"]["model"]
        training = {"learning_rate": options["learning_rate"], "weight_decay": options["weight_decay"]}
        disentangled = self.config["methods"]["disentangled"]
        from histill.methods.disentangled.module import StudentModule, TeacherModule
        from histill.methods.module import SupervisedModule

        if self.kind == "teacher":
            return TeacherModule(network, labels, **disentangled["teacher"], **training)
        if self.distils:
            return StudentModule(network, labels, **disentangled["student"], **training)
        return SupervisedModule(network, labels, **training)

    def _dataset(self, patients: list[str], labels: Labels, scalers, expression, max_tiles: int | None):
        import torch

        from histill.data.module import BagDataset

        encoded = [labels.encode(self.cohort.label(self.task, patient)) for patient in patients]
        label, event = torch.tensor(encoded).T
        targets = {"label": label, "event": event}
        if expression is not None:
            genes = self.cohort.expression.transformed(patients, expression)
            targets.update({f"genes:{subspace}": torch.from_numpy(genes[subspace]) for subspace in SUBSPACES})
        if self.distils:
            targets.update(self._teacher_targets(patients))
        return BagDataset(patients, self.cohort.bags, scalers, targets, max_tiles=max_tiles, seed=self.seed)

    def _teacher_targets(self, patients: list[str]) -> dict[str, Any]:
        """The frozen teacher's outputs for patients with RNA; zeros and `taught` 0 for the others."""
        import torch

        from histill.methods.predict import network_outputs

        teacher = Checkpoint.read(self.folder.parent / "teacher")
        paired = [patient for patient in patients if self.cohort.value(patient, "has_rna")]
        rows = torch.tensor([patients.index(patient) for patient in paired])
        targets = {"taught": torch.zeros(len(patients))}
        targets["taught"][rows] = 1.0
        outputs = network_outputs(teacher, self.cohort, paired, device=self.config["training"]["device"])
        for name in ("logits", *SUBSPACES):
            for level, value in outputs[name].items():
                full = torch.zeros(len(patients), value.shape[1])
                full[rows] = value
                targets[f"teacher:{name}:{level}"] = full
        return targets


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
