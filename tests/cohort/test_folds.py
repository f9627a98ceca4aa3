from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histill.cohort import folds
from histill.errors import ConfigError

COHORT = st.lists(st.sampled_from(["a", "b", "none"]), min_size=2, max_size=120)


@given(strata=COHORT, n=st.integers(2, 8), seed=st.integers(0, 5))
def test_folds_are_even_and_every_stratum_is_spread(strata, n, seed):
    patients = [f"p{index}" for index in range(len(strata))]
    assigned = folds.assign(patients, strata, n=n, seed=seed)
    assert sorted(assigned) == sorted(patients)
    sizes = Counter(assigned.values())
    assert max(sizes.values()) - min(sizes.get(fold, 0) for fold in range(n)) <= 1
    for stratum in set(strata):
        own = Counter(assigned[p] for p, s in zip(patients, strata, strict=True) if s == stratum)
        assert max(own.values()) - min(own.get(fold, 0) for fold in range(n)) <= 1


@given(strata=COHORT, seed=st.integers(0, 5))
def test_folds_do_not_depend_on_the_order_of_patients(strata, seed):
    patients = [f"p{index}" for index in range(len(strata))]
    turned = folds.assign(patients[::-1], strata[::-1], n=3, seed=seed)
    assert folds.assign(patients, strata, n=3, seed=seed) == turned


def test_seed_changes_folds():
    patients = [f"p{index}" for index in range(40)]
    assert folds.assign(patients, ["a"] * 40, n=4, seed=0) != folds.assign(patients, ["a"] * 40, n=4, seed=1)


@given(strata=COHORT, seed=st.integers(0, 5))
def test_inner_split_is_a_proper_part(strata, seed):
    patients = [f"p{index}" for index in range(len(strata))]
    held = folds.inner_split(patients, strata, fraction=0.15, seed=seed)
    assert 1 <= len(held) < len(patients)
    assert set(held) < set(patients)
    assert len(held) <= 0.15 * len(patients) + len(set(strata))


def test_published_folds(tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text("patient_id,fold\na,0\nb,1\nc,0\nextra,1\n")
    assert folds.from_file(path, ["a", "b", "new"], labelled={"a", "b"}) == {"a": 0, "b": 1, "new": -1}
    for content, message in (
        ("patient_id,fold\na,0\n", "1 patients with an outcome have no fold: b"),
        ("patient_id,fold\na,0\nb,x\n", "line 3: fold 'x' of patient 'b'"),
        ("patient_id,fold\na,0\nb,1\na,1\n", "patient 'a' is in fold 0 and in fold 1"),
        ("patient_id,fold\na,1\nb,2\n", "folds must be numbered 0, 1, 2"),
        ("patient,fold\na,1\n", "has no column 'patient_id'"),
    ):
        path.write_text(content)
        with pytest.raises(ConfigError) as caught:
            folds.from_file(path, ["a", "b"], labelled={"a", "b"})
        assert message in str(caught.value)
