from __future__ import annotations

import pytest

from histill.cohort import sheets
from histill.config import complete
from histill.errors import ConfigError

TASKS = {
    "diagnosis": {"type": "classification", "label": "diagnosis"},
    "os": {"type": "survival", "time": "months", "event": "dead"},
}
PATIENTS = [f"P{index}" for index in range(12)]


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """A valid cohort in the working directory; returns a function that loads it after edits."""
    monkeypatch.chdir(tmp_path)
    for patient in PATIENTS:
        (tmp_path / f"{patient}.svs").write_text("x")
    text = {
        "slides.csv": "slide_id,patient_id,path\n" + "".join(f"S{p},{p},{p}.svs\n" for p in PATIENTS),
        "clinical.csv": "patient_id,diagnosis,months,dead\n"
        + "".join(f"{p},{'ab'[i % 2]},{i + 0.5},{i % 2}\n" for i, p in enumerate(PATIENTS)),
        "expression.tsv": "x\n",
    }

    def load(edits=None, **config):
        for name, content in {**text, **(edits or {})}.items():
            (tmp_path / name).write_text(content, encoding="utf-8")
        options = {
            "results": "r",
            "cohort": {"slides": "slides.csv", "clinical": "clinical.csv", "expression": "expression.tsv"},
            "tasks": TASKS,
            "folds": {"n": 3},
            **config,
        }
        return sheets.load(complete(options))

    load.text = text
    return load


def problems(load, edits=None, **config) -> str:
    with pytest.raises(ConfigError) as caught:
        load(edits, **config)
    return "\n".join(caught.value.problems)


def test_a_valid_cohort_loads(cohort):
    loaded = cohort()
    assert list(loaded.slides) == [f"S{p}" for p in PATIENTS]
    assert loaded.tasks["os"].label(loaded.clinical.rows["P3"]) == (3.5, 1)
    assert loaded.notes == []


def test_byte_order_mark_and_blank_lines_are_harmless(cohort):
    assert len(cohort({"slides.csv": "\ufeff" + cohort.text["slides.csv"] + "\n,,\n"}).slides) == 12


def test_all_problems_at_once(cohort):
    slides = (
        "slide_id,patient_id,path,mpp\n"
        "S1,P1,P1.svs,0.5\n"
        "S1,P2,P2.svs,0.5\n"
        "s1,P2,P2.svs,\n"
        "../x,P3,P3.svs,\n"
        "S4,P4,none.svs,\n"
        "S5,P5,P5.svs,half\n"
        "S6,P6,P6.svs,40\n"
        ",P7,P7.svs,\n"
    )
    clinical = cohort.text["clinical.csv"].replace("P2,a,2.5,0", "P2,a,-2.5,0").replace("P3,b,3.5,1", "P3,b,soon,yes")
    text = problems(cohort, {"slides.csv": slides, "clinical.csv": clinical})
    for part in (
        "line 3: slide_id 'S1' occurs a second time (first on line 2)",
        "line 4: slide_id 's1' differs from 'S1' by upper and lower case only",
        "line 5: slide_id '../x' is no safe file name",
        "line 6: slide 'S4': file 'none.svs' does not exist",
        "line 7: mpp 'half' is no positive number",
        "line 8: slide 'S6': mpp 40 is outside",
        "line 9: 'slide_id' is empty",
        "patient 'P2': 'months' is -2.5",
        "patient 'P3': 'months' is 'soon', which is no number",
        "patient 'P3': 'dead' is 'yes'",
    ):
        assert part in text, part


@pytest.mark.parametrize("bad", ["a b", "a/b", "a\\b", "$(x)", "a;b", ".hidden", "x" * 101, "é", "a.", "-a", "con'"])
def test_unsafe_ids_are_refused(cohort, bad):
    text = cohort.text["slides.csv"].replace("SP4,P4", f'"{bad}",P4')
    assert "is no safe file name" in problems(cohort, {"slides.csv": text})


def test_label_columns(cohort):
    assert "needs column 'diagnosis', which does not exist" in problems(
        cohort, {"clinical.csv": cohort.text["clinical.csv"].replace("diagnosis", "dx")}
    )
    one = "patient_id,diagnosis,months,dead\n" + "".join(f"{p},a,1,1\n" for p in PATIENTS)
    assert "one class only ('a')" in problems(cohort, {"clinical.csv": one})
    none = "patient_id,diagnosis,months,dead\n" + "".join(f"{p},,1,1\n" for p in PATIENTS)
    assert "no value at all" in problems(cohort, {"clinical.csv": none})
    rare = "patient_id,diagnosis,months,dead\n" + "".join(f"{p},{'b' if p == 'P1' else 'a'},1,1\n" for p in PATIENTS)
    assert "class 'b' has 1 patients, fewer than the 3 folds" in problems(cohort, {"clinical.csv": rare})


def test_no_event_is_no_survival_task(cohort):
    text = "patient_id,diagnosis,months,dead\n" + "".join(f"{p},{'ab'[i % 2]},1,0\n" for i, p in enumerate(PATIENTS))
    assert "has 0 events" in problems(cohort, {"clinical.csv": text})


def test_half_an_outcome_is_an_error_and_none_is_a_note(cohort):
    half = cohort.text["clinical.csv"].replace("P2,a,2.5,0", "P2,a,2.5,")
    assert "'months' is given and 'dead' is empty" in problems(cohort, {"clinical.csv": half})
    for nothing in ("P2,a,,", "P2,a,NA,na", "P2,a,nan,[Not Available]"):
        loaded = cohort({"clinical.csv": cohort.text["clinical.csv"].replace("P2,a,2.5,0", nothing)})
        assert loaded.tasks["os"].label(loaded.clinical.rows["P2"]) is None
        assert any("1 patient without an outcome" in note for note in loaded.notes)


def test_missing_files_sheets_and_tasks_without_a_sheet(cohort, tmp_path):
    cohort()
    (tmp_path / "expression.tsv").unlink()
    options = {"slides": "nothing.csv", "clinical": None, "expression": "expression.tsv"}
    with pytest.raises(ConfigError) as caught:
        sheets.load(complete({"results": "r", "cohort": options, "tasks": TASKS}))
    text = str(caught.value)
    assert "nothing.csv: cannot be read" in text
    assert "cohort.expression: 'expression.tsv' does not exist" in text
    assert "tasks need label columns" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("slide_id,patient_id,path\n", "holds no rows"),
        ("slide_id,patient,path\nS1,P1,P1.svs\n", "has no column 'patient_id' (is it 'patient'?)"),
        ("slide_id,patient_id,path,MPP\nS1,P1,P1.svs,1\n", "unknown column 'MPP' looks like 'mpp'"),
        ("slide_id,patient_id,path\nS1,P1\n", "line 2: 2 cells, the header has 3"),
        ("slide_id,patient_id,path,path\nS1,P1,P1.svs,x\n", "column names occur more than once: 'path'"),
        ('slide_id,patient_id,path\n"S1,P1,P1.svs\n', "line 2"),
    ],
)
def test_broken_sheets(cohort, content, message):
    assert message in problems(cohort, {"slides.csv": content})


def test_text_that_is_not_utf8(cohort, tmp_path):
    cohort()
    (tmp_path / "clinical.csv").write_bytes("patient_id,diagnosis\nP1,\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        sheets.load(complete({"results": "r", "cohort": {"slides": "slides.csv", "clinical": "clinical.csv"}}))


def test_own_columns_are_welcome(cohort):
    text = cohort.text["slides.csv"].replace("path\n", "path,scanner\n").replace(".svs\n", ".svs,GT450\n")
    assert len(cohort({"slides.csv": text}).slides) == 12


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_found_in_the_header(cohort, delimiter):
    assert len(cohort({"slides.csv": cohort.text["slides.csv"].replace(",", delimiter)}).slides) == 12


def test_the_usual_delimiter_in_a_quoted_column_name_cuts_nothing(cohort):
    lines = cohort.text["slides.csv"].replace(",", ";").splitlines()
    for name in ('"note, if any"', '"note,\nif any"'):
        text = "\n".join([f"{name};{lines[0]}", *(f"-;{line}" for line in lines[1:])])
        assert len(cohort({"slides.csv": text}).slides) == 12


def test_a_line_that_no_sheet_has_is_a_problem_of_the_sheet(cohort):
    assert "field larger than field limit" in problems(cohort, {"slides.csv": "{" + "x" * 200_000})


def test_empty_columns_at_the_right_edge_are_harmless(cohort):
    text = cohort.text["slides.csv"]
    assert len(cohort({"slides.csv": text.replace("\n", ",,\n")}).slides) == 12
    assert len(cohort({"slides.csv": text.replace(".svs\n", ".svs,,\n")}).slides) == 12
    assert "4 cells, the header has 3" in problems(cohort, {"slides.csv": text.replace("P3.svs\n", "P3.svs,x\n")})


@pytest.mark.parametrize("name", ["a b.svs", "a'b.svs", "$(touch x).svs", "-x.svs", "*.svs", "[a].svs", "é;#.svs"])
def test_odd_file_names_are_only_names(cohort, tmp_path, name):
    (tmp_path / name).write_text("x")
    assert cohort({"slides.csv": cohort.text["slides.csv"].replace("P3.svs", name)}).slides["SP3"].path == name


@pytest.mark.parametrize("name", ["{x}.svs", "{batch}.svs", "{{x}}.svs"])
def test_braces_in_a_path_are_refused(cohort, tmp_path, name):
    (tmp_path / name).write_text("x")
    text = problems(cohort, {"slides.csv": cohort.text["slides.csv"].replace("P3.svs", name)})
    assert f"line 5: slide 'SP3': path '{name}' holds a brace" in text
    (tmp_path / name).rename(tmp_path / "e{x}.tsv")
    options = {"slides": "slides.csv", "clinical": "clinical.csv", "expression": "e{x}.tsv"}
    assert "cohort.expression: path 'e{x}.tsv' holds a brace" in problems(cohort, cohort=options)


def test_links_in_a_circle_null_characters_and_folders(cohort, tmp_path):
    (tmp_path / "loop.svs").symlink_to("loop.svs")
    text = cohort.text["slides.csv"]
    assert "Too many levels" in problems(cohort, {"slides.csv": text.replace("P3.svs", "loop.svs")})
    assert "U+0000" in problems(cohort, {"slides.csv": text.replace("P3.svs", "P\0.svs")})
    folder = {"gene_sets": {"tumor": "."}}
    assert "gene_sets.tumor: '.' is a folder" in problems(cohort, transcriptome=folder)


def test_one_file_is_not_two_patients(cohort, tmp_path):
    cohort()
    (tmp_path / "link.svs").symlink_to("P3.svs")
    text = cohort.text["slides.csv"]
    for path in ("P3.svs", "./P3.svs", "link.svs"):
        found = problems(cohort, {"slides.csv": text.replace("P4.svs", path)})
        assert f"file '{path}' is that of slide 'SP3' too, which is another patient's ('P3', not 'P4')" in found
    assert len(cohort({"slides.csv": text + "again,P3,P3.svs\n"}).slides) == 13


def test_class_names(cohort):
    clinical = cohort.text["clinical.csv"]
    for name in ("a b", "x,y", "$(touch x)", "<b>{x}", "日本"):
        assert cohort({"clinical.csv": clinical.replace(",b,", f',"{name}",')})
    assert "holds a line break" in problems(cohort, {"clinical.csv": clinical.replace(",b,", ',"b\nc",')})
    mixed = clinical.replace("P1,b", "P1,B").replace("P3,b", "P3,B").replace("P5,b", "P5,B")
    assert "classes 'B' and 'b' differ in case or spaces only" in problems(cohort, {"clinical.csv": mixed})


@pytest.mark.parametrize("time", ["1e999", "inf", "1_000", "０", "5,5"])
def test_times_that_are_no_numbers(cohort, time):
    text = cohort.text["clinical.csv"].replace("P3,b,3.5", f'P3,b,"{time}"')
    assert f"'months' is '{time}', which is no number" in problems(cohort, {"clinical.csv": text})


@pytest.mark.parametrize("event", ["True", "2", "yes", "0.5", "-1"])
def test_events_are_0_or_1(cohort, event):
    text = cohort.text["clinical.csv"].replace("P3,b,3.5,1", f"P3,b,3.5,{event}")
    assert f"'dead' is '{event}'; 1 is the event" in problems(cohort, {"clinical.csv": text})


def test_times_that_rank_nobody(cohort):
    rows = "".join(f"{p},{'ab'[i % 2]},0,{i % 2}\n" for i, p in enumerate(PATIENTS))
    found = problems(cohort, {"clinical.csv": "patient_id,diagnosis,months,dead\n" + rows})
    assert "no patient's 'months' is later than the first event (0)" in found


def test_sheets_without_a_common_patient(cohort):
    text = cohort.text["clinical.csv"].replace("\nP", "\nTCGA-P")
    found = problems(cohort, {"clinical.csv": text})
    assert "none of the 12 patients of cohort.slides (such as 'P0')" in found
    assert "(such as 'TCGA-P0')" in found
    assert len(cohort({"clinical.csv": text}, tasks={}).slides) == 12
