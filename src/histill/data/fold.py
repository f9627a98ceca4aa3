"""One fold of one task: its patients, its labels, and everything fitted on its training patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort import folds as numbers
from histill.cohort.glioma import Rule
from histill.cohort.tasks import Task
from histill.data.bags import BagReader
from histill.data.expression import ExpressionTransform, GeneSets
from histill.data.expression_table import ExpressionTable
from histill.data.labels import class_weights, survival_bin, survival_edges
from histill.data.pseudonyms import pseudonyms
from histill.data.scaling import WinsorizedScaler
from histill.data.subset import random_stream
from histill.errors import HistillError
from histill.provenance import keep_secret, read_json

TRAIN, VALIDATION, TEST, EXTERNAL, UNLABELLED = "train", "validation", "test", "external", "unlabelled"
SCALING_ROWS = 256  # tiles a patient that scaling is fitted on


@dataclass
class Cohort:
    """The cohort as training sees it.

    Attributes
    ----------
    patients
        Columns of `cohort/patients.parquet` by name.
    folds
        `cohort/folds.json`.
    bags
        Reader of the feature stores.
    expression
        Of the patients that have a transcriptome; None for models that read none.
    secret
        Key of the pseudonyms that models may hold of patients; it never leaves the results.
    """

    patients: dict[str, list]
    folds: dict[str, Any]
    bags: BagReader
    expression: ExpressionTable | None = None
    secret: bytes = b""
    _row: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self):
        self._row = {patient: index for index, patient in enumerate(self.patients["patient_id"])}

    @classmethod
    def read(cls, results: str | Path, encoder: str, expression: ExpressionTable | None = None) -> Cohort:
        """Read a cohort below `results`; the transcriptome is never touched."""
        import pyarrow.parquet as pq

        results = Path(results)
        patients = pq.read_table(results / "cohort" / "patients.parquet").to_pydict()
        bags = BagReader(
            results / "features" / encoder, dict(zip(patients["patient_id"], patients["slides"], strict=True))
        )
        secret = keep_secret(results / "cohort" / "pseudonyms.key")
        return cls(patients, read_json(results / "cohort" / "folds.json"), bags, expression, secret)

    def value(self, patient: str, column: str) -> Any:
        return self.patients[column][self._row[patient]]

    def codes(self, patients: list[str]) -> np.ndarray:
        """Pseudonyms of patients, int64 [P] (`histill.data.pseudonyms`)."""
        known = pseudonyms(self.patients["patient_id"], self.secret)
        return np.array([known[patient] for patient in patients], dtype=np.int64)

    def label(self, task: Task, patient: str) -> str | tuple[float, int] | None:
        """Class name, or (time, event), or None where the outcome is not known."""
        if task.type == "classification":
            return self.value(patient, f"label:{task.name}")
        time = self.value(patient, f"time:{task.name}")
        return None if time is None else (time, self.value(patient, f"event:{task.name}"))

    def tested_in(self, patient: str, fold: int) -> int:
        """Fold that tests a patient in the repeat of a fold (`histill.cohort.folds.OUTSIDE`, `EXTERNAL`: in none)."""
        return self.folds["assignment"][patient][fold * self.folds["repeats"] // self.folds["n"]]

    def split(self, task: Task, fold: int, patient: str) -> str:
        """train, validation, test, external or unlabelled: what a patient is to the models of a fold."""
        tested = self.tested_in(patient, fold)
        if self.label(task, patient) is None or tested == numbers.OUTSIDE:
            return UNLABELLED
        if tested == numbers.EXTERNAL:
            return EXTERNAL
        if tested == fold:
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

    def select_unlabelled(self, fold: int, split: str, *, share: float, slide: bool, rna: bool) -> list[str]:
        """Patients of the repeat's other folds that have the wanted modalities, with or without an outcome; sorted.

        A `share` of them, and one at least, is the validation split.
        """
        patients = [
            patient
            for patient in self.patients["patient_id"]
            if self.tested_in(patient, fold) not in (fold, numbers.OUTSIDE, numbers.EXTERNAL)
            and (self.value(patient, "has_slide") or not slide)
            and (self.value(patient, "has_rna") or not rna)
        ]
        held = max(1, round(share * len(patients)))
        order = sorted(patients, key=lambda patient: _lot(fold, patient))
        return sorted(order[:held] if split == VALIDATION else order[held:])

    def without_rna(self, fold: int, share: float, seed: int) -> Cohort:
        """The cohort with the transcriptomes of a random share of the patients hidden that are not tested in a fold.

        Whose are hidden at a share are also hidden at any larger one.
        """
        own = [
            patient
            for patient in self.patients["patient_id"]
            if self.value(patient, "has_rna") and self.tested_in(patient, fold) not in (fold, numbers.EXTERNAL)
        ]
        hidden = set(sorted(own, key=lambda patient: _lot(seed, patient))[: round(share * len(own))])
        rows = zip(self.patients["patient_id"], self.patients["has_rna"], strict=True)
        return replace(
            self, patients={**self.patients, "has_rna": [has and patient not in hidden for patient, has in rows]}
        )


def _lot(seed: int, patient: str) -> float:
    """A patient's place in a random order that further patients do not change."""
    return random_stream(seed, 0, patient).random()


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
            "rule": self.task.rule and asdict(self.task.rule),
            "classes": self.classes,
            "edges": self.edges.tolist(),
            "weights": self.weights.tolist(),
        }

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Labels:
        rule = Rule(**meta["rule"]) if meta.get("rule") else None
        task = Task(meta["task"], meta["type"], tuple(meta["columns"]), meta["bins"], rule)
        return cls(task, meta["classes"], np.array(meta["edges"]), np.array(meta["weights"]))


def fit_features(
    cohort: Cohort, training: list[str], *, seed: int, log: Callable[[str], None] = print
) -> dict[str, WinsorizedScaler]:
    """Feature scaling by magnification, fitted on tiles of the training patients that have a slide.

    A magnification of which they have no tile is left out: nothing can be learned of it in this fold.

    Raises
    ------
    HistillError
        Where no training patient has a valid tile.
    """
    with_slide = [patient for patient in training if cohort.value(patient, "has_slide")]
    levels = cohort.bags.levels
    seen = [level for level in levels if any(cohort.bags.count(patient, level) for patient in with_slide)]
    if not seen:
        raise HistillError(
            f"none of {len(with_slide)} training patients with a slide has a valid tile",
            mend="look at the slides with: histill doctor <slide>, and extract or import them again",
        )
    for level in levels:
        if level not in seen:
            log(f"magnification {level} is left out of this fold: no training patient has a tile of it")
    return {
        level: WinsorizedScaler(clip=10.0).fit(cohort.bags.sample(with_slide, level, rows=SCALING_ROWS, seed=seed))
        for level in seen
    }


def fit_expression(
    cohort: Cohort,
    training: list[str],
    sets: dict[str, GeneSets],
    config: dict[str, Any],
    *,
    selection: dict[str, Any] | None = None,
    classes: dict[str, str | None] | None = None,
) -> ExpressionTransform:
    """The steps of `transcriptome.transform` for some gene sets, fitted on the training patients that have RNA.

    `selection` are the parameters of `histill.data.gene_selection.GeneSelection`, and `classes` what it chooses by.
    """
    options = config["transcriptome"]["transform"]
    method, batch = options["normalisation"], options["batch"]
    transform = ExpressionTransform(
        sets,
        normalisation=None if method == "none" else method,
        batch={name: batch[name] for name in ("unseen", "min_samples")} if batch["column"] else None,
        top_variance=options["top_variance"],
        min_variance=options["min_variance"],
        clip=options["clip"],
        selection=selection,
    )
    with_rna = [patient for patient in training if cohort.value(patient, "has_rna")]
    table = cohort.expression
    return transform.fit(
        table.rows(with_rna),
        table.genes,
        batch=table.batch(with_rna),
        scale=table.scale,
        classes=None if classes is None else [classes.get(patient) for patient in with_rna],
    )
