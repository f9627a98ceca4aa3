"""What can be said against the config's `transcriptome` before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.cohort.sheets import Sheets
from histill.errors import HistillError
from histill.subspaces import SUBSPACES
from histill.transcriptome.gene_sets import read_gmt
from histill.transcriptome.matrix import SIDE_FILES, files

COUNTED = ("auto", "counts", "log2_counts")  # units that may turn out to be counts


def matrix(config: dict[str, Any]) -> list[str]:
    """Problems of `transcriptome.matrix`: keys that contradict each other, files that are not there."""
    options, key = config["transcriptome"]["matrix"], "config key 'transcriptome.matrix"
    path = config["cohort"]["expression"] if "demo" not in config else None
    problems = [
        f"{key}.{name}': '{options[name]}' is no file (paths are relative to {Path.cwd()})"
        for name in SIDE_FILES
        if options[name] and not Path(options[name]).is_file()
    ]
    if options["count_scale"] != "cpm" and not options["gene_lengths"]:
        problems.append(f"{key}.count_scale': {options['count_scale']} needs the table of gene lengths, gene_lengths")
    if options["count_scale"] != "cpm" and options["unit"] not in COUNTED:
        problems.append(f"{key}.count_scale' is for counts, and unit is {options['unit']}; leave it at cpm")
    normalisation = config["transcriptome"]["transform"]["normalisation"]
    if normalisation != "none" and options["unit"] not in COUNTED:
        problems.append(
            f"config key 'transcriptome.transform.normalisation': {normalisation} is for counts, and "
            f"transcriptome.matrix.unit is {options['unit']}; set it to none"
        )
    if options["sheet"] and path and not Path(path).is_dir():
        problems.append(f"{key}.sheet' says which file of a folder is of which sample; '{path}' is one file")
    if path and Path(path).is_dir():
        try:
            files(path)
        except HistillError as error:
            problems.append(f"config key 'cohort.expression': {error.message} ({error.mend})")
    return problems


def gene_sets(config: dict[str, Any]) -> list[str]:
    """Problems of the user's gene sets."""
    paths = [config["transcriptome"]["gene_sets"][space] for space in SUBSPACES]
    paths.append(config["methods"]["msrl"]["model"]["groups"])
    problems = []
    for path in paths:
        try:
            if path and Path(path).is_file():  # else the sheets' check has told
                read_gmt(path)
        except HistillError as error:
            problems.append(f"{error.message} ({error.mend})")
    return problems


def batches(config: dict[str, Any], sheets: Sheets) -> list[str]:
    """Problems of `transcriptome.transform.batch`."""
    column = config["transcriptome"]["transform"]["batch"]["column"]
    sites = column == "site" and any(slide.site for slide in sheets.slides.values())
    if column is None or sites or column in sheets.clinical.columns:
        return []
    return [
        f"config key 'transcriptome.transform.batch.column': the clinical sheet has no column '{column}'; "
        f"it has {', '.join(sheets.clinical.columns) or 'none'}"
    ]
