"""Copies of a cohort's sheets under pseudonyms. Rows are sorted by pseudonym: their order tells nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from histill.cohort import external, fold_file
from histill.cohort.same_patient import id_key
from histill.cohort.sheets import Clinical, Sheets, Slide
from histill.errors import ConfigError, HistillError, SlideError
from histill.evaluation.subgroups import SITE, USUAL
from histill.features.hdf5_bags import companion
from histill.privacy.key import Pseudonyms
from histill.provenance import write_csv
from histill.slides.parts import parts

ID = "patient_id"
SLIDE_COLUMNS = ("slide_id", ID, "path", "mpp", "site", "stain")
_SUFFIX = re.compile(r"[.][A-Za-z0-9]{1,8}")


def used_columns(config: dict[str, Any], sheets: Sheets) -> list[str]:
    """Columns of the clinical sheet that a complete config reads, in the order of the sheet, `patient_id` first.

    Raises
    ------
    HistillError
        When the config picks patients by their ids, or reads a column that holds them: it would name them.
    """
    asked = config["evaluation"]["subgroups"]
    named = {SITE, *(asked or ())}
    for task in sheets.tasks.values():
        named |= {*task.columns, *(column for column, _ in task.where)}
    named |= {(config["folds"]["external"] or {}).get("column"), config["methods"]["msrl"]["cohort"]}
    named.add(config["transcriptome"]["transform"]["batch"]["column"])
    if ID in named:
        raise HistillError(
            f"the config picks patients by the column {ID} (tasks, folds.external, evaluation.subgroups, "
            "transcriptome.transform.batch or methods.msrl.cohort), so it holds their ids",
            mend="give the clinical sheet a column that says which patients are meant, and name that one",
        )
    usual = USUAL if asked is None else ()
    kept = [name for name in sheets.clinical.columns if name in named or name.lower() in usual]
    if copied := [name for name in kept if _holds_ids(name, sheets.clinical)]:
        raise HistillError(
            f"{sheets.clinical.path}: column '{copied[0]}', which the config reads, holds the patients' ids",
            mend="give the clinical sheet a column that says which patients are meant, and name that one",
        )
    return [ID, *kept]


def _holds_ids(column: str, clinical: Clinical) -> bool:
    """Whether most cells of a column are the patient's own id. (Numbers may be so by chance, here and there.)"""
    cells = [(row[column], patient) for patient, row in clinical.rows.items() if column in row]
    return 2 * sum(id_key(cell) == id_key(patient) for cell, patient in cells) > len(cells)


def write_clinical(path: Path, clinical: Clinical, columns: list[str], codes: Pseudonyms) -> None:
    """The clinical sheet with the columns that are used."""
    rows = ({**row, ID: codes.patient(patient)} for patient, row in clinical.rows.items())
    write_csv(path, columns, _sorted({column: row.get(column, "") for column in columns} for row in rows))


def write_slides(path: Path, slides: Iterable[Slide], places: dict[str, str], codes: Pseudonyms) -> None:
    """The slide sheet; `places` maps slide ids to the paths it names."""
    rows = []
    for slide in slides:
        ids = {"slide_id": codes.slide(slide.slide_id), ID: codes.patient(slide.patient_id)}
        mpp = "" if slide.mpp is None else repr(slide.mpp)
        more = {"mpp": mpp, "site": slide.site or "", "stain": slide.stain or ""}
        rows.append({**ids, "path": places[slide.slide_id], **more})
    write_csv(path, SLIDE_COLUMNS, _sorted(rows))


def link(slide: Slide, folder: Path, code: str) -> str | None:
    """Link a slide's file into a folder under its pseudonym; the link's name, or None where a link would not do.

    A file's name often is an id. Slides whose index names files beside it (Hamamatsu VMS, DICOM series), and bags with
    a file of settings in a folder beside theirs (CLAM), are only found under their own name.
    """
    source = Path(os.path.abspath(slide.path))
    suffix = source.suffix if _SUFFIX.fullmatch(source.suffix) else ""
    if companion(source):
        return None
    if suffix.lower() == ".mrxs":
        (folder / code).symlink_to(source.with_suffix(""))
    elif not _is_one_file(source):
        return None
    (folder / f"{code}{suffix}").symlink_to(source)
    return f"{code}{suffix}"


def _is_one_file(path: Path) -> bool:
    try:
        return len(parts(path)) == 1
    except SlideError:  # its index is damaged: it has one
        return False


def write_folds(path: Path, config: dict[str, Any], sheets: Sheets, codes: Pseudonyms) -> None:
    """Published folds, of whatever form, as one sheet."""
    problems: list[str] = []
    tested = sheets.patients() - external.patients(sheets.clinical, config["folds"]["external"])
    folds = fold_file.read(config["folds"]["file"], problems, tested)
    if problems:
        raise ConfigError(problems)
    rows = ({ID: codes.patient(patient), "fold": str(fold)} for patient, fold in folds.items())
    write_csv(path, (ID, "fold"), _sorted(rows))


def write_vectors(path: Path, table: str, codes: Pseudonyms) -> set[str]:
    """A table of slide vectors as parquet, values float32 as they are read; its patients, by their ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from histill.features.imports import read_vectors

    vectors, features = read_vectors(table)
    rows = sorted((codes.slide(one.slide_id), codes.patient(one.patient_id), one.values) for one in vectors)
    arrays = [pa.array([row[0] for row in rows]), pa.array([row[1] for row in rows])]
    arrays += [pa.array([row[2][column] for row in rows], pa.float32()) for column in range(len(features))]
    pq.write_table(pa.table(arrays, names=["slide_id", ID, *features]), path)
    return {one.patient_id for one in vectors}


def write_expression(path: Path, table: str, options: dict[str, Any], codes: Pseudonyms) -> tuple[set[str], str]:
    """An expression table, one row a patient, as h5ad with genes in rows; its patients, by their ids, and its unit.

    Names of samples, and what else the table says of them, stay behind: samples are chosen and replicates merged here,
    since that goes by their names.
    """
    import warnings

    import anndata
    import pandas

    from histill.transcriptome.matrix import by_patient

    rows = by_patient(table, options)
    made = [codes.patient(patient) for patient in rows.patients]
    order = sorted(range(len(made)), key=made.__getitem__)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique.*")  # genes may be written twice
        copy = anndata.AnnData(
            rows.values[order].T,
            obs=pandas.DataFrame(index=pandas.Index(rows.genes, dtype=str)),
            var=pandas.DataFrame(index=pandas.Index([made[index] for index in order], dtype=str)),
        )
        copy.write_h5ad(path, compression="gzip")
    return set(rows.patients), rows.unit


def _sorted(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(rows, key=lambda row: tuple(row.values()))
