"""Expression by patient, as fitted transforms read it: one scale, one row a patient, and their batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.cohort.rows import read_rows
from histill.data.expression import ExpressionTransform
from histill.errors import HistillError

SITE = "site"


@dataclass(frozen=True)
class ExpressionTable:
    """Expression of the patients that have a transcriptome.

    Attributes
    ----------
    patients
        Sorted.
    values
        float64 [P, G]: counts, or values on the scale of the expression file.
    genes
        Symbols [G].
    counts
        Whether `values` are counts.
    batches
        Patient -> batch, None where it is not known; None where no batch is corrected.
    scale
        What `values` are: `counts`, or a scale of `histill.transcriptome.normalise`; None where it is not known.
    """

    patients: list[str]
    values: np.ndarray
    genes: list[str]
    counts: bool = False
    batches: dict[str, str | None] | None = None
    scale: str | None = None

    @classmethod
    def read(cls, results: str | Path, config: dict[str, Any]) -> ExpressionTable:
        """What `transcriptome.transform` asks for: counts where it normalises, batches where it corrects them.

        Raises
        ------
        HistillError
            When counts are asked for and there are none, or no sheet has the batch column.
        """
        from histill.transcriptome.stage import OUTPUT, by_patient, scale

        options = config["transcriptome"]["transform"]
        counts = options["normalisation"] != "none"
        path = Path(results) / OUTPUT
        patients, values, genes = by_patient(path, layer="counts" if counts else None)
        batches = batch_labels(results, config, patients) if options["batch"]["column"] else None
        return cls(patients, values, genes, counts, batches, "counts" if counts else scale(path))

    def rows(self, patients: list[str]) -> np.ndarray:
        """Values of patients [P, G] in the order asked for."""
        row = {patient: index for index, patient in enumerate(self.patients)}
        return self.values[[row[patient] for patient in patients]]

    def batch(self, patients: list[str]) -> list[str | None] | None:
        """Batches of patients in the order asked for."""
        return None if self.batches is None else [self.batches[patient] for patient in patients]

    def imputed(self, patients: list[str], by: ExpressionTransform) -> list[int]:
        """How many genes each patient has no value of and a transform imputes with the training mean."""
        return by.imputed(self.rows(patients), self.genes).tolist()

    def transformed(self, patients: list[str], by: ExpressionTransform) -> dict[str, np.ndarray]:
        """Subspace -> scaled expression [P, n_k] of patients, by a transform fitted on training patients.

        Raises
        ------
        HistillError
            When the transform was fitted on another scale, with other corrections, or on other genes altogether.
        """
        self._check(by)
        return by.transform(self.rows(patients), self.genes, batch=self.batch(patients))

    def _check(self, by: ExpressionTransform) -> None:
        """Refuse a transform that was fitted on something else."""
        if (self.counts, self.batches is not None) != (by.normalisation is not None, by.batch is not None):
            raise HistillError(
                f"the model was trained with normalisation '{by.normalisation or 'none'}' and "
                f"{'with' if by.batch is not None else 'without'} batch correction; transcriptome.transform asks for "
                "something else",
                mend="train the model again, or predict with the config it was trained with",
            )
        if None not in (self.scale, by.scale_) and _measure(self.scale) != _measure(by.scale_):
            raise HistillError(
                f"the model was trained on expression as {by.scale_}, and this table holds {self.scale}",
                mend="give a table of that unit (transcriptome.matrix.unit, .count_scale), or train the model again",
            )
        for subspace, missing in by.missing(self.genes).items():
            if len(missing) == len(by.genes_[subspace]):
                raise HistillError(
                    f"the expression table has none of the {len(missing)} {subspace} genes that the model reads",
                    mend="give a table with HGNC symbols of the genes it was trained on, or train it again",
                )


def _measure(scale: str) -> str:
    """The scale without how it was come by: TPM of salmon, and TPM from counts and gene lengths, are one."""
    return scale.split(",")[0]


def batch_labels(results: str | Path, config: dict[str, Any], patients: list[str]) -> dict[str, str | None]:
    """Batch of each patient: a column of clinical.csv, or `site` of `patients.parquet`, which slides.csv gives too.

    Raises
    ------
    HistillError
        When the sheet has no such column.
    """
    column, key = config["transcriptome"]["transform"]["batch"]["column"], "transcriptome.transform.batch.column"
    if column == SITE:
        import pyarrow.parquet as pq

        table = pq.read_table(Path(results) / "cohort" / "patients.parquet", columns=["patient_id", SITE]).to_pydict()
        known = dict(zip(table["patient_id"], table[SITE], strict=True))
    else:
        known = clinical_column(config, column, key=key, others=", or site,")
    return {patient: known.get(patient) for patient in patients}


def clinical_column(config: dict[str, Any], column: str, *, key: str, others: str = "") -> dict[str, str | None]:
    """Patient -> cell of a column of the clinical sheet; `key` of the config names it, and may name `others`.

    Raises
    ------
    HistillError
        When the sheet has no such column.
    """
    demo = Path(config["results"]) / "demo" / "clinical.csv"
    path = demo if "demo" in config else config["cohort"]["clinical"]
    problems: list[str] = []
    header, rows = read_rows(path, problems) if path else ([], [])
    if problems or column not in header:
        raise HistillError(
            problems[0] if problems else f"{path or 'config: cohort.clinical'} has no column '{column}'",
            mend=f"name a column of the clinical sheet{others} in {key}",
        )
    return {row.get("patient_id"): row.get(column) for _, row in rows}
