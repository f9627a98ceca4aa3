"""One fold of one task: its patients, its labels, and everything fitted on its training patients."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.tasks import Task
from histill.data.bags import BagReader
from histill.data.expression import ExpressionTransform
from histill.data.labels import class_weights, survival_bin, survival_edges
from histill.data.scaling import WinsorizedScaler
from histill.provenance import read_json

TRAIN, VALIDATION, TEST, UNLABELLED = "train", "validation", "test", "unlabelled"
SCALING_ROWS = 256  # tiles a patient that scaling is fitted on


@dataclass
class Cohort:
    """The cohort as training sees it.

    Attributes
    ----------
    patients
        Columns of `cohort/patients.parquet` by name.
    bags
        Reader of the feature stores.
    expression
        (patient ids, matrix [P, G] float64, gene symbols), or None without transcriptomes.
    """

    patients: dict[str, list]
    folds: dict[str, Any]
    bags: BagReader
    expression: tuple[list[str], np.ndarray, list[str]] | None = None
    _row: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self):
        self._row = {patient: index for index, patient in enumerate(self.patients["patient_id"])}

    @classmethod
    def read(cls, results: str | Path, encoder: str, *, genes: bool = True) -> Cohort:
        """Read a cohort below `results`; `genes=False` never touches the transcriptome."""
        import pyarrow.parquet as pq

        results = Path(results)
        patients = pq.read_table(results / "cohort" / "patients.parquet").to_pydict()
        bags = BagReader(
            results / "features" / encoder, dict(zip(patients["patient_id"], patients["slides"], strict=True))
        )
        expression = None
        path = results / "transcriptome" / "expression.h5ad"
        if genes and any(patients["has_rna"]):
            from histill.transcriptome.stage import by_patient

            expression = by_patient(path)
        return cls(patients, read_json(results / "cohort" / "folds.json"), bags, expression)

    def value(self, patient: str, column: str) -> Any:
        return self.patients[column][self._row[patient]]

    def label(self, task: Task, patient: str) -> str | tuple[float, int] | None:
        """Class name, or (time, event), or None where the outcome is not known."""
        if task.type == "classification":
            return self.value(patient, f"label:{task.name}")
        time = self.value(patient, f"time:{task.name}")
        return None if time is None else (time, self.value(patient, f"event:{task.name}"))

    def split(self, task: Task, fold: int, patient: str) -> str:
        """train, validation, test or unlabelled: what a patient is to the models of a fold."""
        if self.label(task, patient) is None or self.value(patient, "fold") < 0:
            return UNLABELLED
        if self.value(patient, "fold") == fold:
            return TEST
        return VALIDATION if patient in self.folds["validation"][task.name][str(fold)] else TRAIN

    def select(self, task: Task, fold: int, split: str, *, slide: bool, rna: bool) -> list[str]:
        """Patients of a split that have the wanted modalities, sorted."""
        return sorted(
            patient
            for patient in self.patients["patient_id"]
            if self.split(task, fold, patient) == split
            and (self.value(patient, "has_slide") or not slide)
            and (self.value(patient, "has_rna") or not rna)
        )

    def genes(self, patients: list[str]) -> np.ndarray:
        """Expression of patients [P, G] in the order asked for."""
        ids, matrix, _ = self.expression
        row = {patient: index for index, patient in enumerate(ids)}
        return matrix[[row[patient] for patient in patients]]


@dataclass
class Labels:
    """Labels of a task as numbers, fitted on training patients.

    `edges` are the survival intervals' inner edges; `weights` the class weights.
    """

    task: Task
    classes: list[str] = field(default_factory=list)
    edges: np.ndarray = field(default_factory=lambda: np.zeros(0))
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def fit(cls, task: Task, cohort: Cohort, training: list[str]) -> Labels:
        labels = [cohort.label(task, patient) for patient in training]
        if task.type == "survival":
            time, event = np.array(labels, dtype=np.float64).reshape(-1, 2).T
            return cls(task, edges=survival_edges(time, event, task.bins))
        classes = cohort.folds["classes"][task.name]
        return cls(task, classes, weights=class_weights(np.array([classes.index(x) for x in labels]), len(classes)))

    @property
    def outputs(self) -> int:
        """Number of logits: classes, or intervals of discrete time."""
        return len(self.classes) if self.task.type == "classification" else len(self.edges) + 1

    def encode(self, label: str | tuple[float, int]) -> tuple[int, int]:
        """(class, 0), or (interval, event)."""
        if self.task.type == "classification":
            return self.classes.index(label), 0
        return int(survival_bin(np.array([label[0]]), self.edges)[0]), int(label[1])

    def meta(self) -> dict[str, Any]:
        """What a checkpoint's config.json says of the labels."""
        return {
            "task": self.task.name,
            "type": self.task.type,
            "columns": list(self.task.columns),
            "bins": self.task.bins,
            "classes": self.classes,
            "edges": self.edges.tolist(),
            "weights": self.weights.tolist(),
        }

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Labels:
        task = Task(meta["task"], meta["type"], tuple(meta["columns"]), meta["bins"])
        return cls(task, meta["classes"], np.array(meta["edges"]), np.array(meta["weights"]))


def fit_features(cohort: Cohort, training: list[str], *, seed: int) -> dict[str, WinsorizedScaler]:
    """Feature scaling by magnification, fitted on tiles of the training patients that have a slide."""
    with_slide = [patient for patient in training if cohort.value(patient, "has_slide")]
    return {
        level: WinsorizedScaler(clip=10.0).fit(cohort.bags.sample(with_slide, level, rows=SCALING_ROWS, seed=seed))
        for level in cohort.bags.levels
    }


def fit_expression(cohort: Cohort, training: list[str], config: dict[str, Any]) -> ExpressionTransform:
    """Gene choice and scaling of the subspaces, fitted on the training patients that have RNA."""
    from histill.transcriptome.gene_sets import subspaces

    options = config["transcriptome"]["transform"]
    transform = ExpressionTransform(subspaces(config), top_variance=options["top_variance"], clip=options["clip"])
    with_rna = [patient for patient in training if cohort.value(patient, "has_rna")]
    return transform.fit(cohort.genes(with_rna), cohort.expression[2])
