"""The leakage audit: no patient may be tested by a model that has seen the patient under another id.

Compared are all patients with each other: how their ids are written, the files of their slides, their feature arrays,
the pictures of their slides, their expression profiles. Two that are one leak where a fold tests one of them and trains
on the other, and where one is of the external cohort. Two that are always tested together are counted twice, which is
a warning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histill.batches import collect
from histill.cohort.folds import EXTERNAL, OUTSIDE
from histill.cohort.same_patient import (
    FEWEST_VALUES,
    SAME_PICTURE,
    SAME_PROFILE,
    distinct,
    id_key,
    pairs_by_key,
    picture_vector,
    profile_ranks,
    similar,
)
from histill.errors import HistillError
from histill.provenance import Receipt, digest, file_digest, read_json, write_json
from histill.software import sign
from histill.stages import recipe

OUTPUT = "cohort/audit.json"
CLEAN, LEAK, WARNED = "ok", "leak", "warned"
MAX_NAMED = 10
_SLIDE_FILES = ("slide", "bag")  # inputs of a features receipt that are fingerprints of a slide's own file
_OF_SLIDES = ("files of slides", "feature arrays", "pictures of slides")
_MEND = (
    "give both one patient_id in every sheet and in the expression table (TCGA barcodes there: "
    "transcriptome.matrix.patient: tcga), or correct the row that names the wrong patient; where they are two people "
    "for certain, go on with folds.audit: warn"
)
_NOTE = (
    "Every patient was compared with every other one. A leak is a pair of which a fold tests one and trains on the "
    "other, or of which one is external. Copies that were cropped, rotated or stained again are not found."
)


@dataclass
class Finding:
    """Two patients who seem to be one.

    Attributes
    ----------
    kind
        `id`, `slide` (one file), `features` (one array), `picture`, or `expression`.
    patients, items
        Both patients, and the slides or the measure that tell.
    folds
        Where the two are tested.
    what
        All of it in a sentence.
    leak
        Whether a model sees one of them and is tested on the other, for certain.
    """

    kind: str
    patients: list[str]
    items: list[str]
    folds: str
    what: str
    leak: bool


def run(*, config: dict[str, Any], results: str | Path) -> dict[str, Any]:
    """Compare the patients of a cohort; write `cohort/audit.json` and, unless it fails, the receipt, which is returned.

    Raises
    ------
    HistillError
        A leak, under `folds.audit: fail`.
    """
    import pyarrow.parquet as pq

    results = Path(results)
    columns = ["patient_id", "slides", "has_rna"]
    table = pq.read_table(results / "cohort" / "patients.parquet", columns=columns).to_pydict()
    assignment = read_json(results / "cohort" / "folds.json")["assignment"]
    patients = table["patient_id"]
    owner = {slide: patient for patient, slides in zip(patients, table["slides"], strict=True) for slide in slides}
    with_rna = [patient for patient, has in zip(patients, table["has_rna"], strict=True) if has]
    found = [
        *_ids(patients),
        *_slides(results, config["features"]["encoder"], owner),
        *_expression(results, with_rna),
    ]
    findings = [_finding(*pair, assignment) for pair in found]
    leaks = [finding for finding in findings if finding.leak]
    report = {
        "state": LEAK if leaks else WARNED if findings else CLEAN,
        "checked": {
            "patients": len(patients),
            "slides": len(owner),
            "profiles": len(with_rna),
            "by": ["spelling of ids", *(_OF_SLIDES if owner else ()), *(["expression profiles"] if with_rna else ())],
        },
        "findings": [asdict(finding) for finding in sorted(findings, key=lambda finding: not finding.leak)],
        "note": _NOTE,
    }
    write_json(results / OUTPUT, report)
    if leaks and config["folds"]["audit"] == "fail":
        (results / "receipts" / "audit.json").unlink(missing_ok=True)
        named = "".join(f"\n  {finding.what}" for finding in leaks[:MAX_NAMED])
        more = f"\n  and {len(leaks) - MAX_NAMED} more" if len(leaks) > MAX_NAMED else ""
        raise HistillError(
            f"the leakage audit found patients who are one ({results / OUTPUT}):{named}{more}", mend=_MEND
        )
    receipt = {
        "stage": "audit",
        "recipe": recipe("audit", config),
        "outputs": {OUTPUT: file_digest(results / OUTPUT)},
        "state": report["state"],
        "warnings": [finding.what for finding in findings],
    }
    receipt = sign(results, receipt)
    write_json(results / "receipts" / "audit.json", receipt)
    return receipt


Found = tuple[str, tuple[str, str], list[str], str, bool]  # kind, patients, items, what, certain


def _finding(kind: str, patients: tuple[str, str], items: list[str], what: str, certain: bool, assignment) -> Finding:
    crosses, folds = _places(*patients, assignment)
    return Finding(kind, list(patients), items, folds, f"{what}; {folds}", certain and crosses)


def _places(first: str, second: str, assignment: dict[str, list[int]]) -> tuple[bool, str]:
    """Whether some model trains on one of two patients and is tested on the other, and where they are tested."""
    pairs = list(zip(assignment[first], assignment[second], strict=True))
    apart = [pair for pair in pairs if OUTSIDE not in pair and pair[0] != pair[1]]
    here, there = apart[0] if apart else pairs[0]
    if here == there:
        return False, f"both are {_place(here)}"
    repeats = f" (apart in {len(apart)} of {len(pairs)} repeats)" if len(pairs) > 1 and apart else ""
    return bool(apart), f"'{first}' is {_place(here)}, '{second}' is {_place(there)}{repeats}"


def _place(fold: int) -> str:
    return {OUTSIDE: "in no fold", EXTERNAL: "external"}.get(fold, f"tested in fold {fold}")


def _ids(patients: list[str]) -> Iterator[Found]:
    for first, second in pairs_by_key((id_key(patient), patient) for patient in patients):
        yield "id", (first, second), [], f"patients '{first}' and '{second}' are one id written in two ways", True


def _slides(results: Path, encoder: str, owner: dict[str, str]) -> Iterator[Found]:
    """Pairs of slides of different patients; each pair by the strongest sign alone."""
    seen: set[tuple[str, str]] = set()
    receipts = [r for r in collect([results / "receipts" / "features.json"]) if r.slide in owner]
    for kind, alike, pairs in (
        ("slide", "are one file", pairs_by_key(_fingerprints(receipts), owner)),
        ("features", "have one feature array", pairs_by_key(_arrays(results, encoder, receipts), owner)),
        ("picture", "show one picture", _pictures(results, owner)),
    ):
        for pair in pairs:
            if pair in seen:
                continue
            seen.add(pair)
            patients = tuple(owner[slide] for slide in pair)
            said = " and ".join(f"slide '{slide}' of patient '{owner[slide]}'" for slide in pair)
            yield kind, patients, list(pair), f"{said} {alike}", True


def _fingerprints(receipts: list[Receipt]) -> Iterator[tuple[str, str]]:
    """(fingerprint of the file, slide): of content, whatever its name and place."""
    for receipt in receipts:
        yield from ((receipt.inputs[name], receipt.slide) for name in _SLIDE_FILES if name in receipt.inputs)


def _arrays(results: Path, encoder: str, receipts: list[Receipt]) -> Iterator[tuple[str, str]]:
    """(digest of X, slide) of every group of a store that has a row, by the store's own digests.

    Arrays that many slides may have, such as zeros, are left out.
    """
    import zarr

    folder = results / "features" / encoder
    found: dict[str, list[tuple[str, str]]] = {}
    for receipt in receipts:
        path = folder / f"{receipt.slide}.zarr" / "zarr.json"
        record = read_json(path)["attributes"].get("histill")
        if record is None:
            raise HistillError(
                f"{path} has no completion record: it is of an earlier version, or was cut off",
                mend="extract the features again: snakemake -R features",
            )
        for group, counts in record["groups"].items():
            if counts["valid"]:
                files = {name: made for name, made in record["files"].items() if name.startswith(f"{group}/X/")}
                found.setdefault(digest(files), []).append((receipt.slide, group))
    for key, own in found.items():
        slide, group = own[0]
        if len(own) > 1:
            x = zarr.open_group(folder / f"{slide}.zarr", mode="r")[group]["X"]
            if distinct(np.asarray(x)) < FEWEST_VALUES:
                continue
        yield from ((key, slide) for slide, _ in own)


def _pictures(results: Path, owner: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of slides of different patients whose overviews are one picture."""
    paths = {slide: results / "slides" / slide / "overview.jpg" for slide in sorted(owner)}
    slides = [slide for slide, path in paths.items() if path.exists()]
    if len(slides) < 2:
        return
    vectors = np.stack([picture_vector(paths[slide]) for slide in slides])
    for i, j, _ in similar(vectors, SAME_PICTURE):
        if owner[slides[i]] != owner[slides[j]]:
            yield slides[i], slides[j]


def _expression(results: Path, with_rna: list[str]) -> Iterator[Found]:
    """Identical profiles, and such as only repeats of one sample are."""
    from histill.transcriptome import stage as transcriptome

    if len(with_rna) < 2:
        return
    patients, matrix, _ = transcriptome.by_patient(results / transcriptome.OUTPUT)
    values = np.array([distinct(row) for row in matrix])
    varied = np.flatnonzero(values > 1)  # zeros throughout are no profile
    if len(varied) < 2:
        return
    patients, x = [patients[row] for row in varied], matrix[varied].astype(np.float32)
    told = dict(zip(patients, (values[varied] >= FEWEST_VALUES).tolist(), strict=True))
    identical = set(pairs_by_key((hashlib.sha256(row).hexdigest(), own) for own, row in zip(patients, x, strict=True)))
    for pair in sorted(identical):
        said = f"'{pair[0]}' and '{pair[1]}' have one expression profile"
        few = "" if told[pair[0]] else f" (of fewer than {FEWEST_VALUES} different values, so it may be chance)"
        yield "expression", pair, ["identical"], f"{said}{few}", told[pair[0]]
    ranks = profile_ranks(x)
    for i, j, value in similar(ranks, SAME_PROFILE) if ranks is not None else ():
        pair = (patients[i], patients[j])
        if pair not in identical:
            said = f"'{pair[0]}' and '{pair[1]}' have nearly one expression profile (Spearman correlation {value:.3f})"
            yield "expression", pair, [f"correlation {value:.3f}"], said, False
