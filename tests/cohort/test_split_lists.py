from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histill.cohort import fold_file, folds, split_lists
from histill.errors import ConfigError

PATIENTS = [f"P{number:02d}" for number in range(12)]


def even(patients=PATIENTS, n=3):
    """Lists of n folds: column -> patients."""
    return [{"train": [p for p in patients if p not in patients[k::n]], "val": patients[k::n]} for k in range(n)]


def write(folder, lists, columns=("train", "val")):
    """The lists as pandas writes them: an index, and cells left empty below the shorter columns."""
    folder.mkdir(exist_ok=True)
    for number, own in enumerate(lists):
        length = max(len(own[column]) for column in columns)
        padded = [[*own[column], *[""] * (length - len(own[column]))] for column in columns]
        rows = [",".join([str(row), *cells]) for row, cells in enumerate(zip(*padded, strict=True))]
        (folder / f"splits_{number}.csv").write_text("\n".join([",".join(["", *columns]), *rows]) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "lists"


def problems(path, patients=PATIENTS) -> list[str]:
    found: list[str] = []
    fold_file.read(path, found, set(patients))
    return found


def test_the_fold_of_a_patient_is_where_it_is_held_out(folder):
    write(folder, even())
    (folder / "splits_0_bool.csv").write_text("patient,train\n")  # of other tools, beside the lists
    expected = {patient: number % 3 for number, patient in enumerate(PATIENTS)}
    assert folds.from_file(folder, PATIENTS, labelled=set(PATIENTS)) == expected
    assert folds.from_file(folder, [*PATIENTS, "new"], labelled=set(PATIENTS)) == {**expected, "new": -1}
    assert fold_file.files(folder) == [f"{folder}/splits_{number}.csv" for number in range(3)]
    assert fold_file.files(folder / "splits_0.csv") == [f"{folder}/splits_0.csv"]


def test_ten_folds_are_read_by_number(folder):
    write(folder, even(n=12))
    assert fold_file.read(folder, [], set(PATIENTS)) == {patient: number for number, patient in enumerate(PATIENTS)}


def test_where_there_are_test_lists_they_are_held_out(folder):
    lists = even()
    for own in lists:
        own["test"], own["val"], own["train"] = own["val"], own["train"][:2], own["train"][2:]
    write(folder, lists, ("train", "val", "test"))
    found: list[str] = []
    assert fold_file.read(folder, found, set(PATIENTS))["P04"] == 1
    assert found == []


def test_an_empty_test_column_is_none(folder):
    write(folder, [{**own, "test": []} for own in even()], ("train", "val", "test"))
    assert fold_file.read(folder, [], set(PATIENTS))["P04"] == 1


@pytest.mark.parametrize("slides", [["01Z-00-DX1.8F1D.svs"], ["01Z-00-DX1", "01Z-00-DX2.AB.svs", "01A"]])
def test_slides_of_tcga_stand_for_their_patients(folder, slides):
    patients = [f"TCGA-A{number}-0{number}Z9" for number in range(6)]
    lists = [
        {column: [f"{patient}-{slide}" for patient in own for slide in slides] for column, own in part.items()}
        for part in even(patients)
    ]
    write(folder, lists)
    found: list[str] = []
    assert fold_file.read(folder, found, set(patients)) == {p: number % 3 for number, p in enumerate(patients)}
    assert found == []
    lists[0]["train"].append(lists[0]["val"][0].replace("DX1", "DX9"))
    write(folder, lists)
    assert problems(folder, patients) == [
        f"{folder}/splits_0.csv: 1 patient (TCGA-A0-00Z9) in 'train' and in 'val', which leaks; take them out of one"
    ]


def test_ids_of_cohorts_that_are_no_tcga_patients_are_left_alone(folder):
    samples = [f"TCGA-A{number}-0{number}Z9-01A" for number in range(6)]
    write(folder, even(samples))
    assert set(fold_file.read(folder, [], set(samples))) == set(samples)


def test_a_patient_to_train_on_and_to_test(folder):
    lists = even()
    lists[1]["train"] += ["P01", "P04"]
    write(folder, lists)
    assert problems(folder) == [
        f"{folder}/splits_1.csv: 2 patients (P01, P04) in 'train' and in 'val', which leaks; take them out of one"
    ]
    with pytest.raises(ConfigError, match="which leaks"):
        folds.from_file(folder, PATIENTS, labelled=set())


@given(st.data())
def test_folds_of_slides_leak_and_are_refused(tmp_path_factory, data):
    """As the published lists of kidney cancers: slides dealt to folds, and then named by their patients."""
    slides = [f"{patient}:{number}" for patient in PATIENTS for number in range(2)]
    order = data.draw(st.permutations(slides))
    lists = [{column: [s[:3] for s in own] for column, own in part.items()} for part in even(order)]
    folder = write(tmp_path_factory.mktemp("lists"), lists)
    leaks = [sorted(set(own["train"]) & set(own["val"])) for own in lists]
    found = problems(folder)
    for number, own in enumerate(leaks):
        said = [line for line in found if line.startswith(f"{folder}/splits_{number}.csv:") and "leaks" in line]
        assert len(said) == bool(own)
        assert all(patient in said[0] for patient in own[:10])
    assert bool(found) == any(leaks)


def test_no_more_than_ten_patients_are_named(folder):
    patients = [f"P{number:02d}" for number in range(40)]
    lists = even(patients)
    lists[0]["train"] = patients
    write(folder, lists)
    (found,) = problems(folder, patients)
    assert "14 patients (P00, P03, P06, P09, P12, P15, P18, P21, P24, P27, ...) in 'train'" in found


def test_a_patient_held_out_twice(folder):
    lists = even()
    lists[2]["val"].append("P00")
    lists[2]["train"].remove("P00")
    write(folder, lists)
    assert problems(folder) == [
        f"{folder}/splits_2.csv: 1 patient (P00) in 'val' here and in splits_0.csv; a patient is held out in one fold"
    ]


def test_patients_of_the_cohort_that_are_never_tested(folder):
    lists = even()
    lists[0]["val"].remove("P03")
    write(folder, lists)
    (problem,) = problems(folder)
    assert problem.startswith(f"{folder}: 1 patient (P03) in no 'val', so never tested; are all lists here?")
    others = [patient for patient in PATIENTS if patient != "P03"]
    assert problems(folder, others) == []
    (folder / "splits_2.csv").unlink()
    assert f"{folder}: 5 patients (P02, P03, P05, P08, P11) in no 'val'" in problems(folder)[0]


def test_patients_that_a_fold_would_train_on_unasked(folder):
    lists = even()
    lists[0]["train"] = lists[0]["train"][1:]
    write(folder, lists)
    assert problems(folder) == [
        f"{folder}/splits_0.csv: 1 patient (P01) not listed; a fold trains on all patients that it does not hold out: "
        "put them in 'train'"
    ]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], "none"),
        (["splits_0.csv"], "splits_0.csv"),
        (["splits_1.csv", "splits_2.csv"], "splits_1.csv, splits_2.csv"),
        (["splits_0.csv", "splits_2.csv", "splits_10.csv"], "splits_0.csv, splits_2.csv, splits_10.csv"),
    ],
)
def test_folders_without_whole_lists(folder, names, found):
    folder.mkdir()
    for name in names:
        (folder / name).write_text("train,val\na,b\n")
    (problem,) = problems(folder)
    assert problem.endswith(f"two or more; here are: {found}")
    assert problem.startswith(f"{folder}: published lists are splits_0.csv")


def test_lists_that_are_no_lists(folder):
    write(folder, even())
    (folder / "splits_1.csv").write_text("patient,val\nP00,P01\n")
    assert problems(folder) == [f"{folder}/splits_1.csv: has no column 'train'"]
    (folder / "splits_1.csv").write_text("train,val\nP00,\nP01,\n")
    assert f"{folder}/splits_1.csv: column 'val' names no patient, so the fold tests none" in problems(folder)
    (folder / "splits_1.csv").write_text("train,val\n,P01\n")
    assert f"{folder}/splits_1.csv: column 'train' names no patient, so the fold trains on none" in problems(folder)


def test_patients_with_an_outcome_must_be_listed(folder):
    write(folder, even())
    with pytest.raises(ConfigError, match="1 patients with an outcome have no fold: new"):
        folds.from_file(folder, [*PATIENTS, "new"], labelled={"new"})


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [("porpoise_tcga_gbmlgg", [114, 114, 114, 114, 113]), ("survpath_tcga_coadread", [58, 71, 45, 69, 55])],
)
def test_published_lists(shared_data, folder, name, counts):
    folder.mkdir()
    for number in range(5):
        shutil.copy(shared_data / "rna" / "splits" / f"{name}_splits_{number}.csv", folder / f"splits_{number}.csv")
    read = list(split_lists.read(folder, []).values())
    assert [read.count(fold) for fold in range(5)] == counts
    patients = set(split_lists.read(folder, []))
    assert problems(folder, patients) == []
