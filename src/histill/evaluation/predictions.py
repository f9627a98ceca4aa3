"""Read what the models predicted, and refuse what cannot be scored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

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
    fold
        Patient -> fold in which the patient is tested.
    classes
        Class names; empty for survival.
    """

    type: str
    values: dict[str, Any]
    fold: dict[str, int]
    classes: tuple[str, ...] = ()

    @property
    def folds(self) -> list[int]:
        return sorted(set(self.fold.values()))


@dataclass
class Predictions:
    """Test predictions of one model.

    Attributes
    ----------
    test
        (fold, seed) -> patient -> risk [1] or class probabilities [C]; patients with a known outcome only.
    training_risk
        (fold, seed) -> risks [N] of the training patients of that fold's model (survival).
    """

    model: Model
    test: dict[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict)
    training_risk: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def patients(self) -> set[str]:
        """Patients tested under every seed."""
        by_seed: dict[int, set[str]] = {}
        for (_, seed), rows in self.test.items():
            by_seed.setdefault(seed, set()).update(rows)
        return set.intersection(*by_seed.values())


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
    fold = {patient: number for patient, number in folds["assignment"].items() if number >= 0}  # -1: in no fold
    if kind == "survival":
        rows = zip(*(table[name] for name in columns), strict=True)
        values = {patient: (float(time), int(event)) for patient, time, event in rows if _known(time) and _known(event)}
        return Outcomes(kind, values, fold)
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
    return Outcomes(kind, values, fold, classes)


def read_predictions(results: Path, task: str, model: Model, outcomes: Outcomes, seeds: list[int]) -> Predictions:
    """Predictions of every fold and seed of a model; a missing, leaking or unusable file is an error that names it."""
    predictions = Predictions(model)
    for fold in outcomes.folds:
        for seed in seeds:
            path = model.path(results, task, fold, seed)
            test, training = _read_file(path, model, outcomes, fold)
            predictions.test[fold, seed] = test
            if outcomes.type == "survival":
                predictions.training_risk[fold, seed] = training
    return predictions


def _read_file(path: Path, model: Model, outcomes: Outcomes, fold: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    scores = output_columns(outcomes)
    mend = "delete it and run again: snakemake evaluate; or take the method out of methods.run"
    table = read_table(path, ["patient_id", "split", "modalities", *scores], mend=mend)
    values = np.column_stack([np.asarray(table[name], dtype=np.float64) for name in scores])
    test: dict[str, np.ndarray] = {}
    training = []
    needed = set(model.inputs.split("+"))
    rows = zip(table["patient_id"], table["split"], table["modalities"], values, strict=True)
    for patient, split, modalities, value in rows:
        if split in ("train", "validation") and outcomes.fold.get(patient) == fold:
            raise HistillError(
                f"{path}: patient '{patient}' is in its {split} split but is to be tested in fold {fold}; "
                "the model has seen the patient",
                mend=MEND_STALE,
            )
        if split not in ("train", "test") or not needed <= set(modalities.split("+")):
            continue
        check_value(value, f"{path}: patient '{patient}'", outcomes.type)
        if split == "train":
            training.append(value[0])
            continue
        if outcomes.fold.get(patient) != fold:
            raise HistillError(
                f"{path}: patient '{patient}' is in its test split but belongs to fold {outcomes.fold.get(patient)}, "
                f"not {fold}; the score would be of a patient the model has seen",
                mend=MEND_STALE,
            )
        if patient in test:
            raise HistillError(f"{path}: patient '{patient}' is predicted twice in the test split", mend=mend)
        if patient in outcomes.values:
            test[patient] = value
    if outcomes.type == "survival" and not training:
        raise HistillError(
            f"{path}: holds no patient of the training split, whose median risk is the cut-off", mend=mend
        )
    return test, np.array(training)


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


def read_table(path: Path, columns: list[str], *, mend: str) -> dict[str, list[Any]]:
    """Columns of a parquet file; a file or column that is absent or cannot be read is an error with this mend."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(path).names
        absent = [name for name in columns if name not in found]
        if absent:
            raise HistillError(f"{path} has no column {', '.join(map(repr, absent))}", mend=mend)
        return pq.read_table(path, columns=columns).to_pydict()
    except FileNotFoundError:
        raise HistillError(f"{path} does not exist", mend=mend) from None
    except pa.ArrowInvalid as error:
        raise HistillError(f"{path} is no readable parquet file: {error}", mend=mend) from None


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))
