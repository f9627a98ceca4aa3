"""Who is tested where: repeats, sites, published folds, the external cohort."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histill.cohort import external, fold_checks, folds
from histill.cohort.assignment import assign
from histill.cohort.sheets import Clinical, Sheets
from histill.cohort.tasks import Task
from histill.config import complete
from histill.errors import ConfigError

TASKS = {
    "dx": Task("dx", "classification", ("dx",)),
    "os": Task("os", "survival", ("time", "event")),
}


def sheets(count: int = 24, *, sites: int = 6, **cells: list[str | None]) -> Sheets:
    clinical = Clinical(columns=["patient_id", "dx", "time", "event", "site", *cells])
    for index in range(count):
        patient = f"P{index:02}"
        row = {"dx": "ab"[index % 2], "time": str(index + 1), "event": str(index // 2 % 2), "site": f"s{index % sites}"}
        clinical.rows[patient] = row | {name: own[index] for name, own in cells.items() if own[index] is not None}
        clinical.lines[patient] = index + 2
    return Sheets(clinical=clinical, tasks=TASKS)


def options(**changes):
    return complete({"results": "r", "cohort": {}, "folds": {"n": 3, **changes}})["folds"]


def config(**changes):
    return {"folds": options(**changes)}


@settings(deadline=None, max_examples=25)
@given(count=st.integers(6, 40), repeats=st.integers(1, 4), seed=st.integers(0, 3), preserve=st.booleans())
def test_every_repeat_tests_every_patient_once_and_trains_on_the_others(count, repeats, seed, preserve):
    own = sheets(count)
    patients = sorted(own.clinical.rows)
    made = assign(patients, own, options(repeats=repeats, seed=seed, sites="preserve" if preserve else "ignore"))
    assert (made.n, made.repeats) == (3 * repeats, repeats)
    assert list(made.folds) == patients
    for repeat in range(repeats):
        assert {numbers[repeat] for numbers in made.folds.values()} == set(range(3 * repeat, 3 * repeat + 3))
    for fold in range(made.n):
        tested = {patient for patient, numbers in made.folds.items() if fold in numbers}
        assert tested | set(made.training(fold)) == set(patients)
        assert not tested & set(made.training(fold))
        if preserve:
            rows = own.clinical.rows
            assert not {rows[p]["site"] for p in tested} & {rows[p]["site"] for p in made.training(fold)}


def test_the_first_repeat_is_what_one_repeat_is_and_the_others_differ():
    own = sheets(40)
    patients = sorted(own.clinical.rows)
    once, often = (assign(patients, own, options(repeats=repeats)).folds for repeats in (1, 3))
    strata = [f"{row['dx']}|event{row['event']}" for row in own.clinical.rows.values()]
    assert {patient: number for patient, (number,) in once.items()} == folds.assign(patients, strata, n=3, seed=1)
    assert all(often[patient][0] == number for patient, (number,) in once.items())
    columns = [[numbers[repeat] % 3 for numbers in often.values()] for repeat in range(3)]
    assert columns[0] != columns[1] != columns[2] != columns[0]


def test_repeats_that_are_the_same_partition_are_told():
    own = sheets(24)
    patients = sorted(own.clinical.rows)
    for index, row in enumerate(own.clinical.rows.values()):
        row["site"] = f"s{index // 12}"
    same = "only 1 of 4 repeats of the folds differ"
    made = assign(patients, own, options(n=2, repeats=4, sites="preserve"))
    assert [text for text in made.warnings if same in text]
    assert assign(patients, own, options(repeats=4)).warnings == []


def test_a_site_written_in_two_ways_is_refused():
    own = sheets(24)
    for row, name in zip(own.clinical.rows.values(), ["North  Clinic", "north clinic", "A", "B"] * 6, strict=True):
        row["site"] = name
    (problem,) = fold_checks.check(config(sites="preserve"), own)
    assert "sites 'North  Clinic', 'north clinic' differ only in case and blanks" in problem


def test_an_external_cohort_without_outcomes_is_told():
    own = sheets(24, centre=["away" if index < 6 else "here" for index in range(24)])
    for patient in sorted(own.clinical.rows)[:6]:
        del own.clinical.rows[patient]["dx"]
    assert fold_checks.check(config(external={"column": "centre", "values": ["away"]}), own) == []
    assert [note for note in own.notes if "no external patient" in note] == [
        "task 'dx': no external patient has an outcome, so none is scored"
    ]


def test_where_the_folds_come_from_is_told():
    own = sheets(cohort=["in"] * 20 + ["out"] * 4)
    patients = sorted(own.clinical.rows)
    found = assign(patients, own, options(repeats=2, external={"column": "cohort", "values": ["OUT"]}))
    assert found.source == "stratified by outcome, seed 1, 2 repeats; 4 external patients by cohort"
    preserved = assign(patients, own, options(sites="preserve"))
    assert preserved.source == "sites preserved, outcomes balanced, seed 1"
    assert preserved.sites[0]["optimal"]
    assert sum(fold["patients"] for fold in preserved.sites[0]["folds"]) == 24
    assert preserved.warnings[0].startswith("folds that preserve 6 sites: 8 to 8 patients")


def test_external_patients_are_in_no_fold_and_train_nothing(tmp_path):
    own = sheets(cohort=["in"] * 18 + ["out"] * 6)
    patients = [*sorted(own.clinical.rows), "from the expression table"]
    apart = {"column": "cohort", "values": ["out"]}
    path = tmp_path / "folds.csv"
    path.write_text("patient_id,fold\n" + "".join(f"P{index:02},{index % 3}\n" for index in range(18)))
    for changes in ({"repeats": 2}, {"sites": "preserve"}, {"file": str(path)}):
        made = assign(patients, own, options(external=apart, **changes))
        numbers = [folds.EXTERNAL] * made.repeats
        assert {p for p, own in made.folds.items() if own == numbers} == {f"P{index}" for index in range(18, 24)}
        assert not {p for fold in range(made.n) for p in made.training(fold)} & {f"P{index}" for index in range(18, 24)}
    assert fold_checks.check(config(external=apart), own) == []
    assert own.notes == ["6 patients are external: tested by every fold's models, trained on by none"]


@pytest.mark.parametrize(
    ("column", "values", "changes", "message"),
    [
        ("kohort", ["out"], {}, "no column 'kohort'; its columns are patient_id, dx, time, event, site, cohort"),
        ("cohort", ["out", "else"], {}, "no patient has 'else' in column 'cohort'; it holds in, out"),
        ("cohort", ["in", "out"], {}, "every patient is external"),
        (
            "cohort",
            ["out"],
            dict.fromkeys(range(18), "a"),
            "without the external cohort ('folds.external'), clinical.csv",
        ),
        ("cohort", ["out"], {20: "c"}, "class 'c' is of external patients only"),
    ],
)
def test_an_external_cohort_that_cannot_be_is_refused(column, values, changes, message):
    own = sheets(cohort=["in"] * 18 + ["out"] * 6)
    for index, name in changes.items():
        own.clinical.rows[f"P{index:02}"]["dx"] = name
    problems = list(external.check(own, {"column": column, "values": values}, folds=3))
    assert any(message in problem for problem in problems), problems


def test_patients_without_a_site_are_named_or_left_out():
    own = sheets()
    patients = sorted(own.clinical.rows)
    for patient in ("P03", "P07"):
        del own.clinical.rows[patient]["site"]
    with pytest.raises(ConfigError, match="2 patients with an outcome have no site: P03, P07; write it in a column"):
        assign(patients, own, options(sites="preserve"))
    assert any("no site: P03, P07" in problem for problem in fold_checks.check(config(sites="preserve"), own))
    for patient in ("P03", "P07"):
        own.clinical.rows[patient].clear()
    made = assign(patients, own, options(sites="preserve", repeats=2))
    assert made.folds["P03"] == [folds.OUTSIDE] * 2
    assert made.warnings[-1] == "2 patients without an outcome and without a site are in no fold"
    assert fold_checks.check(config(sites="preserve"), own) == []


def test_a_site_that_holds_all_of_a_class_is_refused():
    own = sheets(sites=3)
    for row in own.clinical.rows.values():
        row["dx"] = "a" if row["site"] == "s0" else "b"
    with pytest.raises(ConfigError, match=r"task 'dx': outside fold . there is no patient of class 'a' to train on"):
        assign(sorted(own.clinical.rows), own, options(sites="preserve"))


def test_how_many_folds_there_are_is_known_before(tmp_path):
    own = sheets()
    assert fold_checks.count(config(repeats=4), own) == 12
    path = tmp_path / "folds.csv"
    path.write_text("patient_id,fold\n" + "".join(f"{patient},{i % 5}\n" for i, patient in enumerate(own.patients())))
    assert fold_checks.count(config(file=str(path)), own) == 5
    assert fold_checks.check(config(file=str(path)), own) == []
    problems = fold_checks.check(config(file=str(path), repeats=2, sites="preserve"), own)
    assert [problem.split(":")[0] for problem in problems] == ["config key 'folds.repeats'", "config key 'folds.sites'"]
    assert fold_checks.check(config(sites="preserve", n=7), own)[0].endswith("7 folds need as many sites; there are 6")
