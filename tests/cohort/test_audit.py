"""The leakage audit: two ids of one patient on both sides of a split, by every sign there is."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.batches import write_batch
from histill.cohort import audit
from histill.config import complete
from histill.errors import HistillError
from histill.features.store import Group, store_path, write_store
from histill.provenance import Receipt, read_json, write_json
from histill.transcriptome import stage as transcriptome

ENCODER = "colour-texture"
PATIENTS = [f"P{number}{letter}" for number in range(1, 6) for letter in "abc"]
# P1a, P1b and P1c are tested in folds 0, 1 and 2, and so on.
FOLDS = {patient: ["abc".index(patient[-1])] for patient in PATIENTS}


def config(**folds):
    return complete({"results": "results", "cohort": {}, "folds": {"n": 3, **folds}})


def picture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(160, 200)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return (150 + 40 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A cohort without copies: a slide and a profile a patient."""
    folder = tmp_path_factory.mktemp("cohort")
    generator = np.random.default_rng(0)
    receipts = []
    for number, patient in enumerate(PATIENTS):
        slide = f"{patient}-1"
        write_features(folder, slide, generator.normal(size=(5, 4)))
        (folder / "slides" / slide).mkdir(parents=True)
        cv2.imwrite(str(folder / "slides" / slide / "overview.jpg"), picture(number))
        receipts.append(Receipt(slide, "features", "ok", "r", inputs={"slide": f"file {number}", "tiles": "t"}))
    write_batch(folder / "receipts" / "features.json", "features", receipts)
    write_profiles(folder, 5 + generator.normal(size=(len(PATIENTS), 150)))
    write_cohort(folder, FOLDS)
    return folder


@pytest.fixture
def results(whole, tmp_path):
    """A copy of the cohort."""
    return shutil.copytree(whole, tmp_path / "results")


def write_features(results, slide, x, kind=np.float16):
    group = Group(np.asarray(x, dtype=kind), np.zeros((len(x), 2), np.int64))
    write_store(results / store_path(ENCODER, slide), {"20x": group}, {"slide": slide})


def write_profiles(results, x, patients=PATIENTS):
    (results / "transcriptome").mkdir(exist_ok=True)
    genes = [f"G{number}" for number in range(x.shape[1])]
    transcriptome.write(results / transcriptome.OUTPUT, x, list(patients), list(patients), genes, {})


def write_cohort(results, folds):
    slides = [[f"{patient}-1"] if patient in FOLDS else [] for patient in folds]
    rna = [patient in FOLDS for patient in folds]
    table = pa.table({"patient_id": list(folds), "slides": pa.array(slides, pa.list_(pa.string())), "has_rna": rna})
    (results / "cohort").mkdir(exist_ok=True)
    pq.write_table(table, results / "cohort" / "patients.parquet")
    write_json(results / "cohort" / "folds.json", {"n": 3, "repeats": 1, "assignment": folds})


def plant(results, kind, first="P1a", second="P1b"):
    """Make two patients one by one sign."""
    slides = f"{first}-1", f"{second}-1"
    if kind == "slide":
        receipts = [Receipt(**slide) for slide in read_json(results / "receipts" / "features.json")["slides"]]
        by_slide = {receipt.slide: receipt for receipt in receipts}
        by_slide[slides[1]].inputs["slide"] = by_slide[slides[0]].inputs["slide"]
        write_batch(results / "receipts" / "features.json", "features", receipts)
    elif kind == "features":
        x = np.random.default_rng(9).normal(size=(3, 4))
        for slide in slides:
            write_features(results, slide, x)
    elif kind == "picture":
        copy = cv2.resize(picture(PATIENTS.index(first)), None, fx=1.3, fy=1.3)
        path = results / "slides" / slides[1] / "overview.jpg"
        cv2.imwrite(str(path), copy, [cv2.IMWRITE_JPEG_QUALITY, 40])
    else:
        patients, x, _ = transcriptome.by_patient(results / transcriptome.OUTPUT)
        x[patients.index(second)] = x[patients.index(first)]
        write_profiles(results, x, patients)


def test_a_cohort_without_copies_passes(results):
    receipt = audit.run(config=config(), results=results)
    report = read_json(results / audit.OUTPUT)
    assert (report["state"], report["findings"]) == ("ok", [])
    assert {key: report["checked"][key] for key in ("patients", "slides", "profiles")} == {
        "patients": 15,
        "slides": 15,
        "profiles": 15,
    }
    assert len(report["checked"]["by"]) == 5
    assert read_json(results / "receipts" / "audit.json") == receipt
    assert receipt["warnings"] == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("slide", "slide 'P1a-1' of patient 'P1a' and slide 'P1b-1' of patient 'P1b' are one file"),
        ("features", "slide 'P1a-1' of patient 'P1a' and slide 'P1b-1' of patient 'P1b' have one feature array"),
        ("picture", "slide 'P1a-1' of patient 'P1a' and slide 'P1b-1' of patient 'P1b' show one picture"),
        ("expression", "'P1a' and 'P1b' have one expression profile"),
    ],
)
def test_every_sign_of_a_copy_across_folds_ends_the_run(results, kind, said):
    audit.run(config=config(), results=results)
    plant(results, kind)
    with pytest.raises(HistillError) as caught:
        audit.run(config=config(), results=results)
    where = "'P1a' is tested in fold 0, 'P1b' is tested in fold 1"
    assert f"{said}; {where}" in caught.value.message
    assert "patient_id" in caught.value.mend
    assert not (results / "receipts" / "audit.json").exists()
    report = read_json(results / audit.OUTPUT)
    (finding,) = report["findings"]
    assert report["state"] == "leak"
    assert (finding["kind"], finding["patients"], finding["folds"], finding["leak"]) == (
        kind,
        ["P1a", "P1b"],
        where,
        True,
    )
    receipt = audit.run(config=config(audit="warn"), results=results)
    assert receipt["state"] == "leak"
    assert receipt["warnings"] == [finding["what"]]


def test_a_pair_of_slides_is_told_once(results):
    for kind in ("slide", "features", "picture"):
        plant(results, kind)
    audit.run(config=config(audit="warn"), results=results)
    assert [finding["kind"] for finding in read_json(results / audit.OUTPUT)["findings"]] == ["slide"]


@pytest.mark.parametrize("kind", ["slide", "expression"])
def test_copies_that_are_tested_together_are_a_warning(results, kind):
    plant(results, kind, "P1a", "P2a")
    receipt = audit.run(config=config(), results=results)
    assert receipt["state"] == "warned"
    assert "both are tested in fold 0" in receipt["warnings"][0]


@pytest.mark.parametrize(
    ("folds", "leak", "said"),
    [
        ({"P1a": [-2], "P1b": [1]}, True, "'P1a' is external, 'P1b' is tested in fold 1"),
        ({"P1a": [-2], "P1b": [-2]}, False, "both are external"),
        ({"P1a": [-1], "P1b": [1]}, False, "'P1a' is in no fold, 'P1b' is tested in fold 1"),
    ],
)
def test_external_patients_count_and_those_in_no_fold_do_not(results, folds, leak, said):
    plant(results, "slide")
    write_cohort(results, FOLDS | folds)
    audit.run(config=config(audit="warn"), results=results)
    (finding,) = read_json(results / audit.OUTPUT)["findings"]
    assert (finding["leak"], finding["folds"]) == (leak, said)


def test_one_repeat_that_parts_two_ids_is_a_leak(results):
    plant(results, "slide")
    write_cohort(results, {p: [fold, 3 + fold] for p, (fold,) in FOLDS.items()} | {"P1a": [1, 3]})
    audit.run(config=config(audit="warn"), results=results)
    (finding,) = read_json(results / audit.OUTPUT)["findings"]
    assert finding["leak"]
    assert finding["folds"] == "'P1a' is tested in fold 3, 'P1b' is tested in fold 4 (apart in 1 of 2 repeats)"


def test_an_id_in_two_spellings(results):
    write_cohort(results, FOLDS | {"p_01a": [1], "p_02A": [0]})
    audit.run(config=config(audit="warn"), results=results)
    findings = read_json(results / audit.OUTPUT)["findings"]
    assert [(finding["patients"], finding["leak"]) for finding in findings] == [
        (["P1a", "p_01a"], True),
        (["P2a", "p_02A"], False),
    ]
    assert findings[0]["what"].startswith(
        "patients 'P1a' and 'p_01a' are one id written in two ways; 'P1a' is tested in"
    )


def test_profiles_that_are_nearly_one_are_a_warning(results):
    patients, x, _ = transcriptome.by_patient(results / transcriptome.OUTPUT)
    noise = np.random.default_rng(3).normal(size=x.shape[1])
    x[patients.index("P1b")] = x[patients.index("P1a")] + 0.1 * noise
    write_profiles(results, x, patients)
    receipt = audit.run(config=config(), results=results)
    assert receipt["state"] == "warned"
    assert "'P1a' and 'P1b' have nearly one expression profile (Spearman correlation 0.9" in receipt["warnings"][0]


def test_empty_things_are_no_copies(results):
    """Two stores without a valid row, two blank overviews, two profiles of zeros."""
    for patient in ("P1a", "P1b"):
        write_store(
            results / store_path(ENCODER, f"{patient}-1"),
            {"20x": Group(np.zeros((2, 4), np.float16), np.zeros((2, 2), np.int64), {"valid": np.zeros(2, bool)})},
            {},
        )
        cv2.imwrite(str(results / "slides" / f"{patient}-1" / "overview.jpg"), np.full((90, 90), 240, np.uint8))
    patients, x, _ = transcriptome.by_patient(results / transcriptome.OUTPUT)
    x[[patients.index("P1a"), patients.index("P1b")]] = 0
    write_profiles(results, x, patients)
    assert audit.run(config=config(), results=results)["state"] == "ok"


def test_what_is_alike_by_chance_is_no_leak(results):
    """Features that are zeros, a profile that was not measured, and a panel of a few mutations."""
    for patient in ("P1a", "P1b"):
        write_features(results, f"{patient}-1", np.zeros((5, 4)))
    patients, x, _ = transcriptome.by_patient(results / transcriptome.OUTPUT)
    x[[patients.index("P1a"), patients.index("P1b")]] = np.nan
    write_profiles(results, x, patients)
    assert audit.run(config=config(), results=results)["state"] == "ok"
    panel = np.arange(5)[np.newaxis] % 2 + np.arange(len(patients))[:, np.newaxis] // 2
    write_profiles(results, panel.astype(float), patients)
    receipt = audit.run(config=config(), results=results)
    assert receipt["state"] == "warned"
    assert "'P1a' and 'P1b' have one expression profile (of fewer than 10 different values" in receipt["warnings"][0]


def test_imported_features_have_no_pictures_and_may_have_no_genes(results):
    for patient in PATIENTS:
        (results / "slides" / f"{patient}-1" / "overview.jpg").unlink()
    (results / transcriptome.OUTPUT).unlink()
    table = pq.read_table(results / "cohort" / "patients.parquet")
    table = table.set_column(2, "has_rna", pa.array([False] * len(table)))
    pq.write_table(table, results / "cohort" / "patients.parquet")
    assert audit.run(config=config(), results=results)["state"] == "ok"
    plant(results, "features")
    with pytest.raises(HistillError, match="have one feature array"):
        audit.run(config=config(), results=results)


def test_a_store_without_its_record_is_named(results):
    write_json(results / store_path(ENCODER, "P1a-1") / "zarr.json", {"attributes": {}})
    with pytest.raises(HistillError, match=r"P1a-1\.zarr/zarr\.json has no completion record"):
        audit.run(config=config(), results=results)
