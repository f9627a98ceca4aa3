"""Ids written in two ways, pictures saved again, profiles that are repeats."""

from __future__ import annotations

import cv2
import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histill.cohort import same_patient as same


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Case-7", "case-7"),
        ("case-7", "case_007"),
        ("case 7", "case-7"),
        ("c3l-00001", "C3L.1"),
        ("TCGA-A1-A0SB", "tcga_a1_a0sb"),
        ("TCGA-A1-A0SB-01A", "TCGA-A1-A0SB-11B-22R"),
        ("TCGA-02-0001", "TCGA.02.0001-01Z-00-DX1"),
        ("007", "7"),
        ("Ｐ１", "p1"),
    ],
)
def test_one_id_in_two_spellings(first, second):
    assert same.id_key(first) == same.id_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("P1-1", "P11"),
        ("P1", "P10"),
        ("P-10-2", "P-1-02"),
        ("TCGA-A1-A0SB", "TCGA-A1-A0SD"),
        ("TCGA-A1-A0SB", "TCGA-A10SB"),
        ("a", "b"),
        ("0", "P0"),
    ],
)
def test_two_ids(first, second):
    assert same.id_key(first) != same.id_key(second)


@given(st.text("aBtz019 _-.ßä", max_size=12))
def test_every_id_has_a_key_that_case_and_blanks_do_not_change(text):
    assert same.id_key(text)
    assert same.id_key(f"  {text.upper()}\t") == same.id_key(text)


def test_pairs_are_of_different_owners():
    keys = [("k", "a1"), ("k", "b1"), ("k", "a2"), ("other", "c1")]
    owner = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
    assert list(same.pairs_by_key(keys, owner)) == [("a1", "b1"), ("a2", "b1")]
    assert list(same.pairs_by_key(keys)) == [("a1", "a2"), ("a1", "b1"), ("a2", "b1")]


def tissue(seed: int, size: tuple[int, int] = (420, 560)) -> np.ndarray:
    """A picture of blobs on glass, uint8 [height, width, 3]."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    coarse, fine = (cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (40, 4))
    grey = np.where(coarse > 0, 150 + 30 * fine / fine.std(), 240)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_a_picture_saved_again_is_the_same_and_others_are_not(tmp_path):
    vectors, copies = [], []
    for seed in range(12):
        picture = tissue(seed)
        cv2.imwrite(str(tmp_path / f"{seed}.jpg"), picture)
        vectors.append(same.picture_vector(tmp_path / f"{seed}.jpg"))
        for scale, quality in ((1.0, 30), (0.5, 80), (1.7, 90), (0.93, 60)):
            copy = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(tmp_path / "copy.jpg"), copy, [cv2.IMWRITE_JPEG_QUALITY, quality])
            copies.append(float(vectors[-1] @ same.picture_vector(tmp_path / "copy.jpg")))
    assert list(same.similar(np.stack(vectors), 0.75)) == []
    assert min(copies) > 0.95


def test_blank_pictures_are_like_none(tmp_path):
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((300, 200, 3), 250, np.uint8))
    assert not same.picture_vector(tmp_path / "blank.png").any()


def test_blocks_find_what_a_whole_table_does(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    whole = {(i, j) for i, j, _ in same.similar(rows, 0.9)}
    assert whole == {(int(i), int(j)) for i, j in np.argwhere(rows @ rows.T >= 0.9) if i < j}
    monkeypatch.setattr(same, "_BLOCK", 7)
    assert {(i, j) for i, j, _ in same.similar(rows, 0.9)} == whole


def profiles(patients: int = 40, genes: int = 400) -> np.ndarray:
    """Profiles of one tumour type: every gene has a level of its own, and patients share a few factors."""
    generator = np.random.default_rng(5)
    factors = generator.normal(size=(patients, 3)) @ generator.normal(size=(3, genes))
    return 8 + 3 * generator.normal(size=genes) + factors + generator.normal(size=(patients, genes))


def test_repeats_of_a_sample_stand_out_from_patients_of_one_tumour_type():
    x = profiles()
    spread = (x - x.mean(0)).std()
    repeat = x[7] + 0.1 * spread * np.random.default_rng(1).normal(size=x.shape[1])
    ranks = same.profile_ranks(np.vstack([x, repeat]))
    assert [(i, j) for i, j, _ in same.similar(ranks, same.SAME_PROFILE)] == [(7, 40)]


def test_few_profiles_or_genes_tell_nothing():
    x = profiles()
    assert same.profile_ranks(x[:9]) is None
    assert same.profile_ranks(x[:, :99]) is None
    missing = x.copy()
    missing[0, :350] = np.nan
    assert same.profile_ranks(missing) is None


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["tcga_luad", "tcga_stad"])
def test_patients_of_real_cohorts_are_no_repeats(shared_data, name):
    table = pandas.read_parquet(shared_data / name / "rna.parquet")
    x = table.select_dtypes("number").to_numpy(dtype=np.float32)
    assert len(x) > 300
    assert list(same.similar(same.profile_ranks(x), same.SAME_PROFILE)) == []
