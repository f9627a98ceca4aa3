"""A config and its sheets under pseudonyms: what runs on the copies never sees an id."""

from __future__ import annotations

import copy
import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histill import config as configuration
from histill import plan
from histill.cohort.same_patient import id_key, pairs_by_key
from histill.errors import HistillError
from histill.privacy import copies
from histill.privacy.key import Pseudonyms, read_key
from histill.provenance import atomic_folder

CONFIG, IDENTITIES = "config.yaml", "identities.csv"
_HEAD = "# Written by histill pseudonymise: ids are pseudonyms under a key, results go beside this file.\n"
_MAX_NAMED = 10


@dataclass
class Done:
    """What was written.

    Attributes
    ----------
    config
        The config of the copies.
    patients, slides
        How many have a pseudonym.
    notes
        What a user should know: columns that were dropped, slides that keep their path.
    """

    config: Path
    patients: int = 0
    slides: int = 0
    notes: list[str] = field(default_factory=list)


def pseudonymise(config: str | Path, key: str | Path, out: str | Path, *, keep_identities: bool = False) -> Done:
    """Write a folder with the sheets of a config under pseudonyms, and a config that names them.

    In the copies are the ids' pseudonyms (`histill.privacy.key`), the columns that the config reads, and links to the
    slides that bear the slides' pseudonyms. The expression table has one row a patient: samples are chosen and
    replicates merged on the way. Everything else of the config stays as it is.

    Parameters
    ----------
    config
        YAML or JSON; relative paths in it, and in the copy, are of the working folder.
    key
        File of the secret: 32 bytes or more, readable by its owner alone.
    out
        Folder to make.
    keep_identities
        Write `identities.csv` (kind, id, pseudonym) beside the key, readable by its owner alone.

    Raises
    ------
    HistillError
        Where the config or its sheets have a problem, the key is no secret, the folder exists, or two ids of the cohort
        are one written in two ways: under pseudonyms the audit could no longer tell.
    """
    out, identities = Path(out), Path(key).parent / IDENTITIES
    secret = read_key(key)
    if Path(os.path.abspath(key)).is_relative_to(os.path.abspath(out)):
        raise HistillError(f"the key {key} lies in {out}, which others are given", mend="move the key elsewhere")
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise HistillError(f"{out} exists", mend="name another folder with --out, or remove it")
    if keep_identities and os.path.lexists(identities):
        raise HistillError(f"{identities} exists", mend="move it away: it may be of another cohort")
    given = configuration.read(config)
    if "demo" in given:
        raise HistillError(f"{config}: the synthetic cohort has no patients to protect", mend="name your own sheets")
    checked = plan.load(config)
    changed = copy.deepcopy(given)
    changed["results"] = str(out / "results")
    configuration.complete(changed)  # whether a folder of this name can hold results
    codes, notes = Pseudonyms(secret), []
    with atomic_folder(out) as part:
        _write_copies(checked, changed, part, out, codes, notes)
        if keep_identities:  # first: without it nobody could lead the copies back
            _write_identities(identities, codes)
            notes.append(f"{identities} tells who is who: keep it as secret as the key")
    done = Done(out / CONFIG, notes=notes)
    plan.load(done.config)
    kinds = [kind for kind, _ in codes.given]
    done.patients, done.slides = kinds.count("patient"), kinds.count("slide")
    return done


def _write_copies(
    checked: plan.Plan, changed: dict[str, Any], part: Path, out: Path, codes: Pseudonyms, notes: list[str]
) -> None:
    """Write the copies into `part`, which becomes `out`, and change the config to name them."""
    config, sheets = checked.config, checked.sheets
    cohort, patients = _section(changed, "cohort"), set(sheets.patients())
    if sheets.slides:
        _write_slides(sheets, part, out, codes, notes)
        cohort["slides"] = str(out / "slides.csv")
    if config["cohort"]["clinical"]:
        columns = copies.used_columns(config, sheets)
        copies.write_clinical(part / "clinical.csv", sheets.clinical, columns, codes)
        cohort["clinical"] = str(out / "clinical.csv")
        if dropped := [column for column in sheets.clinical.columns if column not in columns]:
            notes.append(f"left out of clinical.csv, since the config does not read them: {_named(dropped)}")
    if config["features"]["source"] == "table":
        patients |= copies.write_vectors(part / "features.parquet", config["features"]["table"], codes)
        changed["features"]["table"] = str(out / "features.parquet")
    if sheets.expression:
        options = config["transcriptome"]["matrix"]
        own, unit = copies.write_expression(part / "expression.h5ad", sheets.expression, options, codes)
        patients |= own
        cohort["expression"] = str(out / "expression.h5ad")
        matrix = _section(_section(changed, "transcriptome"), "matrix")
        matrix |= {"unit": unit, "genes": "rows", "patient": "same", "strand": "auto", "sheet": None, "tx2gene": None}
    if config["folds"]["file"]:
        copies.write_folds(part / "folds.csv", config, sheets, codes)
        changed["folds"]["file"] = str(out / "folds.csv")
    _check_spellings(patients, config["folds"]["audit"], notes)
    import yaml

    text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    (part / CONFIG).write_text(_HEAD + text, encoding="utf-8")


def _write_slides(sheets: Any, part: Path, out: Path, codes: Pseudonyms, notes: list[str]) -> None:
    links = part / "slides"
    links.mkdir()
    places, named = {}, []
    for slide in sheets.slides.values():
        name = copies.link(slide, links, codes.slide(slide.slide_id))
        places[slide.slide_id] = str(out / "slides" / name) if name else slide.path
        named += [] if name else [slide.slide_id]
    if named:
        notes.append(
            f"slides of several files keep their path, which results and logs will show: {_named(named)}; convert them "
            "to single files, or rename them"
        )
    copies.write_slides(part / "slides.csv", sheets.slides.values(), places, codes)


def _check_spellings(patients: set[str], audit: str, notes: list[str]) -> None:
    """Refuse one id in two spellings: nobody can tell from two pseudonyms."""
    pairs = [" and ".join(map(repr, pair)) for pair in pairs_by_key((id_key(name), name) for name in patients)]
    if not pairs:
        return
    said = f"patients who seem to be one, written in two ways: {_named(pairs)}"
    if audit == "fail":
        mend = "write one id for one patient; where they are two people for certain, set folds.audit: warn"
        raise HistillError(f"{said}; under pseudonyms nobody could tell any more", mend=mend)
    notes.append(said)


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a config, made where there is none."""
    if not config.get(name):
        config[name] = {}
    return config[name]


def _write_identities(path: Path, codes: Pseudonyms) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("kind", "id", "pseudonym"))
        writer.writerows(sorted((*known, code) for known, code in codes.given.items()))


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
