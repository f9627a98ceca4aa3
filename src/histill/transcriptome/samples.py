"""Samples of patients: sample sheets, the choice among several samples of one patient, replicates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histill.errors import HistillError
from histill.transcriptome import barcodes
from histill.transcriptome.read_columns import read_columns

# Header names of a sheet in lower case, blanks as underscores; the first are those of GDC.
SHEET = {
    "file": ("file_name", "file", "filename", "path"),
    "folder": ("file_id",),
    "sample": ("sample_id", "sample", "barcode"),
    "patient": ("case_id", "patient_id", "patient", "case"),
}
REPLICATES = ("mean", "first")


@dataclass(frozen=True)
class Sheet:
    """Sample and patient of each file of a folder.

    Attributes
    ----------
    path
        The sheet, for messages.
    samples, patients
        File as the sheet names it, or the folder that it lies in -> sample, patient (absent where the sheet has none).
    """

    path: str
    samples: dict[str, str]
    patients: dict[str, str]


def read_sheet(path: str | Path) -> Sheet:
    """Read a sample sheet: GDC's, or any table with columns file, sample_id and, where they differ, patient_id.

    Raises
    ------
    HistillError
        When a column or a cell is missing, or a file stands on two lines.
    """
    cells = read_columns(path, lambda header: (list(range(len(header))), [])).text
    header = {name.strip().lower().replace(" ", "_"): values for name, values in cells.items()}
    found = {role: next((header[name] for name in names if name in header), None) for role, names in SHEET.items()}
    mend = "a sample sheet has the columns file, sample_id and patient_id, or is the one that GDC's portal gives"
    for role in ("file", "sample"):
        if found[role] is None:
            raise HistillError(f"{path} has no column for the {role}; it has {', '.join(cells)}", mend=mend)
    samples: dict[str, str] = {}
    patients: dict[str, str] = {}
    empty = [None] * len(found["file"])
    rows = zip(found["file"], found["folder"] or empty, found["sample"], found["patient"] or empty, strict=True)
    for number, (file, folder, sample, patient) in enumerate(rows, start=1):
        if file is None or sample is None or (found["patient"] is not None and patient is None):
            raise HistillError(f"{path}, data row {number}: file, sample or patient is empty", mend="fill the cell")
        for key in filter(None, (file, folder)):
            if key in samples:
                raise HistillError(f"{path}, data row {number}: '{key}' occurs a second time", mend="remove the row")
            samples[key] = _one(path, number, sample)
            if patient is not None:
                patients[key] = _one(path, number, patient)
    return Sheet(str(path), samples, patients)


def _one(path: str | Path, number: int, cell: str) -> str:
    """GDC lists a case once for each portion of a pooled sample: `TCGA-1, TCGA-1` is one, two cases are an error."""
    names = {name.strip() for name in cell.split(",")}
    if len(names) > 1:
        raise HistillError(f"{path}, data row {number}: '{cell}' names several", mend="leave out pooled samples")
    return names.pop()


def choose_tumours(
    path: str, samples: list[str], types: tuple[str, ...] = barcodes.PREFERENCE
) -> tuple[list[int], list[str], dict[str, str]]:
    """The tumour samples of TCGA barcodes that stand for each patient.

    Of a patient's samples those of the sample type that comes first in `types` stay, and of those the ones of the
    first vial (A before B; B is often paraffin-embedded). What is left are replicates: see `merge_replicates`. Portions
    of DNA are left out first.

    Returns
    -------
    kept
        Positions of the kept samples, in the order of `samples`.
    patients
        Patient of each kept sample.
    dropped
        Barcode -> reason.

    Raises
    ------
    HistillError
        When an id is no barcode, or no sample of RNA is of one of `types`.
    """
    table = barcodes.parse(path, samples)
    order = {code: rank for rank, code in enumerate(types)}
    table["rank"] = table["sample_type"].map(order)
    named = table["sample_type"].map(lambda code: f"{barcodes.SAMPLE_TYPES.get(code, 'unknown')} ({code})")
    dropped = {sample: f"is {text}" for sample, text in named[table["rank"].isna()].items()}
    dna = table["analyte"].isin(list(barcodes.DNA))
    dropped |= {sample: f"is a portion of DNA (analyte {letter})" for sample, letter in table["analyte"][dna].items()}
    tumours = table[table["rank"].notna() & ~dna]
    if tumours.empty:
        raise HistillError(
            f"{path}: none of its {len(samples)} samples is of a wanted type ({', '.join(types)}) and "
            f"RNA, such as '{samples[0]}', which {dropped[samples[0]]}",
            mend="check the barcodes and transcriptome.matrix.sample_types",
        )
    by_patient = tumours.groupby("patient")
    worse = tumours["rank"] > by_patient["rank"].transform("min")
    dropped |= {
        sample: f"is {text}; the patient has a better one" for sample, text in named[worse[worse].index].items()
    }
    tumours = tumours[~worse]
    later = tumours["vial"] > tumours.groupby("patient")["vial"].transform("min")
    dropped |= dict.fromkeys(tumours.index[later], "is of a later vial")
    tumours = tumours[~later]
    kept = sorted(tumours["position"])
    return kept, tumours.sort_values("position")["patient"].tolist(), dropped


def merge_replicates(
    values: np.ndarray, samples: list[str], patients: list[str], rule: str = "mean"
) -> tuple[np.ndarray, list[str], list[str], dict[str, list[str]]]:
    """One row a patient.

    Parameters
    ----------
    values
        [samples, genes], in the unit of the file: counts are merged as counts, log values as log values.
    rule
        `mean`: the mean of a patient's samples. `first`: the one sample that comes first: among TCGA barcodes by
        analyte (H, R, T), then the highest portion and plate, which were sequenced last; among others by name.

    Returns
    -------
    values
        float32 [patients, genes], sorted by patient.
    samples
        Sample of each patient, joined by `+` where several were averaged.
    patients
        Sorted.
    merged
        Patient -> its samples, of those that had several, best first.
    """
    if rule not in REPLICATES:
        raise ValueError(f"rule is {rule!r}, not one of {REPLICATES}")
    rank = barcodes.replicate_order(samples)
    order = sorted(range(len(samples)), key=lambda index: (patients[index], rank[index]))
    starts = [i for i, index in enumerate(order) if i == 0 or patients[index] != patients[order[i - 1]]]
    groups = [order[start:end] for start, end in zip(starts, [*starts[1:], len(order)], strict=True)]
    merged = {patients[group[0]]: [samples[i] for i in group] for group in groups if len(group) > 1}
    rows = values[[group[0] for group in groups]]
    names = [samples[group[0]] for group in groups]
    if rule == "mean":
        for row, group in enumerate(groups):
            if len(group) > 1:
                rows[row] = values[group].mean(axis=0, dtype=np.float64)
                names[row] = "+".join(samples[i] for i in group)
    return rows, names, [patients[group[0]] for group in groups], merged
