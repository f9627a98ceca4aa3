"""Read what the models predicted, and refuse what cannot be scored."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.folds import EXTERNAL, OUTSIDE
from histill.errors import HistillError
from histill.methods.train import run_folder
from histill.provenance import read_json
from histill.stages import MODELS, predictors

MEND_STALE = "delete the folder of this model and train it again with the present cohort/folds.json"
_SUM_TOLERANCE = 1e-3  # probabilities come out of a float32 or bfloat16 softmax


@dataclass(frozen=True)
class Model:
    """One thing that predicts: a stage of a method, its name for readers, and what it needs of a patient."""

    method: str
    stage: str

    @property
    def name(self) -> str:
        return self.method if len(MODELS[self.method]) == 1 else f"{self.method} {self.stage}"

    @property
    def inputs(self) -> str:
        """`slide`, `rna` or `slide+rna`."""
        return "+".join(MODELS[self.method][self.stage].reads)

    def path(self, results: Path, task: str, fold: int, seed: int) -> Path:
        return run_folder(results, task, self.method, self.stage, fold, seed) / "predictions.parquet"


@dataclass(frozen=True)
class Outcomes:
    """Known outcomes of a task.

    Attributes
    ----------
    type
        `survival` or `classification`.
    values
        Patient -> (time, event), or class index. Patients without an outcome are absent.
    assignment
        Patient -> folds in which the patient is tested, one a repeat, as in `cohort/folds.json` (-1: in no fold; -2:
        external).
    classes
        Class names; empty for survival.
    """

    type: str
    values: dict[str, Any]
    assignment: dict[str, list[int]]
    classes: tuple[str, ...] = ()

    @cached_property
    def folds(self) -> list[int]:
        """Numbers of the folds of all repeats."""
        return sorted({fold for own in self.assignment.values() for fold in own if fold >= 0})

    @cached_property
    def tested(self) -> dict[int, list[str]]:
        """Fold -> sorted patients with a known outcome that are tested in it; every patient recurs once a repeat."""
        return {fold: [p for p in sorted(self.values) if self.tests(fold, p)] for fold in self.folds}

    @cached_property
    def external(self) -> list[str]:
        """Sorted patients with a known outcome that are only tested, by the models of every fold."""
        return [patient for patient in sorted(self.values) if self.is_external(patient)]

    @property
    def repeats(self) -> int:
        """In how many folds a patient is tested."""
        return max(map(len, self.assignment.values()), default=1)

    def tests(self, fold: int, patient: str) -> bool:
        """Whether a patient is tested in a fold, with or without a known outcome."""
        return fold in self.assignment.get(patient, ())

    def is_external(self, patient: str) -> bool:
        return EXTERNAL in self.assignment.get(patient, ())

    def of_external(self) -> Outcomes:
        """The external patients as patients that every fold tests, to be scored like the others."""
        folds = self.folds
        return replace(
            self,
            values={patient: self.values[patient] for patient in self.external},
            assignment=dict.fromkeys(self.external, folds),
        )


@dataclass(frozen=True)
class Curves:
    """Predicted survival of one run.

    Attributes
    ----------
    times
        [T] ends of the model's intervals, ascending, in units of the task's time column.
    values
        Test or external patient -> probability [T] to be free of the event beyond those times.
    """

    times: np.ndarray
    values: dict[str, np.ndarray]


@dataclass
class Predictions:
    """Test predictions of one model.

    Attributes
    ----------
    test
        (fold, seed) -> patient -> risk [1] or class probabilities [C]; patients with a known outcome only.
    training_risk
        (fold, seed) -> risks [N] of the training patients of that fold's model (survival).
    external
        (fold, seed) -> external patient -> as `test`.
    survival
        (fold, seed) -> curves of test and external patients (survival), of runs whose files have them.
    repeats
        In how many folds a patient is tested.
    """

    model: Model
    test: dict[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict)
    training_risk: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    external: dict[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict)
    survival: dict[tuple[int, int], Curves] = field(default_factory=dict)
    repeats: int = 1

    def patients(self) -> set[str]:
        """Patients tested under every seed in every repeat."""
        found = Counter(patient for rows in self.test.values() for patient in rows)
        wanted = self.repeats * len({seed for _, seed in self.test})
        return {patient for patient, count in found.items() if count == wanted}

    def of_external(self) -> Predictions:
        """The predictions of external patients as those of patients that every fold tests (`Outcomes.of_external`)."""
        return replace(self, test=self.external, external={}, repeats=len({fold for fold, _ in self.external}))


def expected_models(config: dict[str, Any]) -> list[Model]:
    """Models that `methods.run` asks for, in the order of `histill.stages.MODELS`."""
    return [
        Model(method, stage) for method in MODELS if method in config["methods"]["run"] for stage in predictors(method)
    ]


def read_outcomes(results: Path, task: str, kind: str) -> Outcomes:
    """Outcomes from `cohort/patients.parquet`, folds and classes from `cohort/folds.json`."""
    path, folds_path = results / "cohort" / "patients.parquet", results / "cohort" / "folds.json"
    columns = (
        ["patient_id", f"label:{task}"] if kind == "classification" else ["patient_id", f"time:{task}", f"event:{task}"]
    )
    table = read_table(path, columns, mend="run the stage 'cohort' again")
    folds = read_json(folds_path)
    assignment = folds["assignment"]
    if kind == "survival":
        rows = zip(*(table[name] for name in columns), strict=True)
        values = {patient: (float(time), int(event)) for patient, time, event in rows if _known(time) and _known(event)}
        return Outcomes(kind, values, assignment)
    classes = tuple(folds["classes"].get(task, ()))
    values = {}
    for patient, label in zip(table["patient_id"], table[f"label:{task}"], strict=True):
        if not _known(label):
            continue
        if str(label) not in classes:
            raise HistillError(
                f"{path}: patient '{patient}': class {label!r} of task '{task}' is not in {folds_path} "
                f"({', '.join(classes)})",
                mend="run the stage 'cohort' again; the two files are of different runs",
            )
        values[patient] = classes.index(str(label))
    return Outcomes(kind, values, assignment, classes)


def read_predictions(results: Path, task: str, model: Model, outcomes: Outcomes, seeds: list[int]) -> Predictions:
    """Predictions of every fold and seed of a model; a missing, leaking or unusable file is an error that names it."""
    predictions = Predictions(model, repeats=outcomes.repeats)
    for fold in outcomes.folds:
        for seed in seeds:
            _read_run(model.path(results, task, fold, seed), predictions, outcomes, fold, seed)
    return predictions


def _read_run(path: Path, predictions: Predictions, outcomes: Outcomes, fold: int, seed: int) -> None:
    """Add the file of one fold and seed to `predictions`."""
    survival = outcomes.type == "survival"
    scores = output_columns(outcomes)
    mend = "delete it and run again: snakemake evaluate; or take the method out of methods.run"
    table = read_table(path, ["patient_id", "split", "modalities", *scores], mend=mend, prefix="s:" if survival else "")
    values = np.column_stack([np.asarray(table[name], dtype=np.float64) for name in scores])
    training: list[float] = []
    groups: dict[str, dict[str, np.ndarray]] = {"test": {}, "external": {}}
    rows_of: dict[str, int] = {}
    needed = set(predictions.model.inputs.split("+"))
    rows = zip(table["patient_id"], table["split"], table["modalities"], values, strict=True)
    for row, (patient, split, modalities, value) in enumerate(rows):
        _check_split(path, outcomes, fold, patient, split)
        if split not in ("train", *groups) or not needed <= set(modalities.split("+")):
            continue
        check_value(value, f"{path}: patient '{patient}'", outcomes.type)
        if split == "train":
            training.append(value[0])
            continue
        if patient in rows_of:
            raise HistillError(f"{path}: patient '{patient}' is predicted twice in the {split} split", mend=mend)
        rows_of[patient] = row
        if patient in outcomes.values:
            groups[split][patient] = value
    if survival and not training:
        raise HistillError(
            f"{path}: holds no patient of the training split, whose median risk is the cut-off", mend=mend
        )
    predictions.test[fold, seed] = groups["test"]
    if outcomes.external:
        predictions.external[fold, seed] = groups["external"]
    if survival:
        predictions.training_risk[fold, seed] = np.array(training)
        if curves := _curves(path, table, rows_of, mend):
            predictions.survival[fold, seed] = curves


def _check_split(path: Path, outcomes: Outcomes, fold: int, patient: str, split: str) -> None:
    """Refuse a patient whose split in a file of predictions is not that of the folds."""
    if split in ("train", "validation") and (outcomes.tests(fold, patient) or outcomes.is_external(patient)):
        which = "is an external patient" if outcomes.is_external(patient) else f"is to be tested in fold {fold}"
        raise HistillError(
            f"{path}: patient '{patient}' is in its {split} split but {which}; the model has seen the patient",
            mend=MEND_STALE,
        )
    if split == "test" and not outcomes.tests(fold, patient):
        own = outcomes.assignment.get(patient)
        raise HistillError(
            f"{path}: patient '{patient}' is in its test split but belongs to {describe_folds(own)}, not {fold}; the "
            "score would be of a patient the model has seen",
            mend=MEND_STALE,
        )
    if split == "external" and not outcomes.is_external(patient):
        raise HistillError(
            f"{path}: patient '{patient}' is in its external split and is no external patient of folds.json",
            mend=MEND_STALE,
        )


def describe_folds(own: list[int] | None) -> str:
    """'fold 2', 'folds 2, 7' of two repeats, 'no fold', 'the external cohort'."""
    if own is None or max(own) == OUTSIDE:
        return "no fold"
    if EXTERNAL in own:
        return "the external cohort"
    return f"fold{'s' if len(own) > 1 else ''} {', '.join(map(str, own))}"


def _curves(path: Path, table: dict[str, list], rows_of: dict[str, int], mend: str) -> Curves | None:
    columns = {float(name.removeprefix("s:")): values for name, values in table.items() if name.startswith("s:")}
    if not columns:
        return None
    times = sorted(columns)
    values = np.array([columns[time] for time in times], dtype=np.float64).T  # [N, T]
    for patient, row in rows_of.items():
        # NaN fails the first comparison.
        if not ((values[row] >= 0) & (values[row] <= 1)).all() or (np.diff(values[row]) > _SUM_TOLERANCE).any():
            raise HistillError(
                f"{path}: patient '{patient}': predicted survival is no probability that falls with time", mend=mend
            )
    return Curves(np.array(times), {patient: values[row] for patient, row in rows_of.items()})


def output_columns(outcomes: Outcomes) -> list[str]:
    """Columns of a prediction table that hold what is scored."""
    return ["risk"] if outcomes.type == "survival" else [f"p:{name}" for name in outcomes.classes]


def check_value(value: np.ndarray, at: str, kind: str) -> None:
    """Refuse a risk [1] or class probabilities [C] that cannot be scored; `at` says where they stand."""
    mend = (
        "the model did not converge: lower training.model.learning_rate, or use precision 32-true, and train it again"
    )
    if not np.isfinite(value).all():
        raise HistillError(
            f"{at}: predicted {'risk' if kind == 'survival' else 'probability'} is not finite", mend=mend
        )
    if kind == "classification" and ((value < 0).any() or abs(value.sum() - 1.0) > _SUM_TOLERANCE):
        raise HistillError(
            f"{at}: class probabilities are negative or do not add up to 1 (sum {value.sum():g})", mend=mend
        )


def read_table(path: Path, columns: list[str], *, mend: str, prefix: str = "") -> dict[str, list[Any]]:
    """Columns of a parquet file, and those with a `prefix`, where one is given.

    A file or column that is absent or cannot be read is an error with this mend.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(path).names
        absent = [name for name in columns if name not in found]
        if absent:
            raise HistillError(f"{path} has no column {', '.join(map(repr, absent))}", mend=mend)
        more = [name for name in found if prefix and name.startswith(prefix)]
        return pq.read_table(path, columns=[*columns, *more]).to_pydict()
    except FileNotFoundError:
        raise HistillError(f"{path} does not exist", mend=mend) from None
    except pa.ArrowInvalid as error:
        raise HistillError(f"{path} is no readable parquet file: {error}", mend=mend) from None


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))
