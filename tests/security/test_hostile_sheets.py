"""Sheets and configs that mean harm: a row works for exactly its slide, or is refused by name; nothing else happens."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histill import plan
from histill.cohort.sheets import check_name
from histill.errors import ConfigError
from tests.security.project import snakemake, write_config, write_sheet, write_slide

COLUMNS = ("slide_id", "patient_id", "path")
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CANARY = "canary"
COMMANDS = [
    f"$(touch {CANARY})", f"`touch {CANARY}`", f"a;touch {CANARY};", f"a&&touch {CANARY}", f"a|touch {CANARY}",
    f"a>{CANARY}", f"';touch {CANARY};'", f'";touch {CANARY};"', f"a\\';touch {CANARY};", "-rf", "--config=x", "!!",
]  # fmt: skip
# Names of files that work: each is the name of a slide of its own.
NAMES = [
    *COMMANDS, "with space", " lead", "it's", 'quo"te', "star*", "[ab]", "q?", "back\\slash", "~", "#hash", "a%20b",
    "=1+1", "na\u0308ive", "na\u00efve", "\uff46\uff55\uff4c\uff4c", "CON", "..hidden", "x" * 200, "a:b", "a,b",
]  # fmt: skip
UNSEEN = ["new\nline", "tab\tx", "esc\x1b[31m", "bi\u202edi", "zero\u200bwidth", "del\x7f", "\u2028", "\ufeffbom"]
BAD_IDS = [
    "../up", "a/b", "..", ".", "", "a b", "$(touch canary)", "`x`", "a;b", "{batch}", "-rf", "a\nb", "a\tb", "é", "ａ",
    "a\u200b", "a\u202eb", "x" * 101, "a'b", 'a"b', "a|b", "a.", "<script>", "~", "*", "ı", "a\x1b",
]  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def problems(folder: Path, rows: list[tuple[str, str, str]]) -> list[str]:
    write_sheet(folder / "slides.csv", COLUMNS, rows)
    try:
        plan.load({"results": str(folder / "r"), "cohort": {"slides": str(folder / "slides.csv")}})
    except ConfigError as error:
        return error.problems
    return []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(slide=texts | st.sampled_from(BAD_IDS), patient=texts | st.sampled_from(BAD_IDS))
def test_an_id_is_a_safe_name_or_is_refused(slide, patient, tmp_path):
    path = tmp_path / "x.svs"
    path.write_bytes(b"x")
    found = problems(tmp_path, [(slide, patient, str(path))])
    safe = all(SAFE_ID.fullmatch(cell.strip()) and not cell.strip().endswith(".") for cell in (slide, patient))
    known = all(cell.strip().lower() not in ("na", "nan", "null", "none") for cell in (slide, patient))
    if not (safe and known):
        assert found
    assert not (tmp_path / "r").exists()


@settings(max_examples=150, deadline=None)
@given(name=texts)
def test_names_of_files_that_break_lines_or_are_not_seen_are_refused(name):
    wrong = "{" in name or "}" in name or any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name)
    found = list(check_name(name))
    assert not wrong or found
    assert all(line.isprintable() for line in found)


BAD_ROWS = [
    *((bad, "p", "good.tif") for bad in BAD_IDS),
    *(("s", bad, "good.tif") for bad in BAD_IDS),
    *(("s", "p", f"{bad}.tif") for bad in [*UNSEEN, "a{b}", "{batch}", "none.tif"]),
]


def test_a_bad_row_is_refused_by_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_slide(tmp_path / "good.tif", 256)
    for bad in ("a{b}", "{batch}", *UNSEEN):
        (tmp_path / f"{bad}.tif").write_bytes(b"there, so that its name alone is wrong")
    for row in BAD_ROWS:
        found = problems(tmp_path, [("first", "p", "good.tif"), row])
        lines = 3 + sum(cell.count("\n") for cell in row)  # the reader counts those within a cell
        assert len(found) == 1, row
        assert f"line {lines}: " in found[0], row
        assert found[0].isprintable(), row
    twice = [("Case", "p", "good.tif"), ("CASE", "p", "good.tif")]
    assert "differs from 'Case' by upper and lower case only" in problems(tmp_path, twice)[0]


@pytest.mark.workflow
def test_a_refused_sheet_leaves_nothing_behind(tmp_path):
    write_slide(tmp_path / "good.tif", 256)
    write_sheet(tmp_path / "slides.csv", COLUMNS, BAD_ROWS)
    write_config(tmp_path, {"results": "results", "cohort": {"slides": "slides.csv"}})
    done = snakemake(tmp_path, "inspect")
    assert done.returncode == 1
    assert f"and {len(BAD_ROWS) - 50} more problems" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"good.tif", "slides.csv", "config.yaml", ".snakemake"}


@pytest.mark.workflow
def test_odd_names_work_for_exactly_their_slides(tmp_path):
    """A real run of the inspection: every slide is found to be itself, and no name was taken for a command."""
    (tmp_path / "in").mkdir()
    (tmp_path / "~").mkdir()
    rows, widths = [], {}
    for index, name in enumerate([*NAMES, "~/home"]):
        path = Path(f"{name}.tif") if name.startswith(("-", "~/")) else Path("in") / f"{name}.tif"
        slide = ("CON", "Nul.1", "x" * 100)[index] if index < 3 else f"s{index}"
        widths[slide] = 256 + 16 * index
        write_slide(tmp_path / path, widths[slide])
        rows.append((slide, f"p{index}", str(path)))
    write_sheet(tmp_path / "slides.csv", COLUMNS, rows)
    write_config(tmp_path, {"results": "res ults", "batch_size": 100, "cohort": {"slides": "slides.csv"}})
    before = {path for path in tmp_path.rglob("*") if ".snakemake" not in path.parts}
    done = snakemake(tmp_path, "inspect")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for slide, width in widths.items():
        facts = json.loads((tmp_path / "res ults" / "slides" / slide / "slide.json").read_text())
        assert facts["width"] == width, slide
    new = {path for path in tmp_path.rglob("*") if ".snakemake" not in path.parts} - before
    assert all("res ults" in path.parts for path in new)
    assert not list(tmp_path.rglob(CANARY))


@pytest.mark.workflow
@pytest.mark.parametrize("bad", ["{batch}", "new\nline"])
def test_names_of_other_files_are_refused_too(bad, tmp_path):
    """Every file that the config names: a brace would be a wildcard of Snakemake, a line break breaks its records."""
    write_slide(tmp_path / "s.tif", 256)
    genes = ("TP53", "EGFR", "MYC", "KRAS", "PTEN", "BRAF")
    files = {
        "slides": "slide_id,patient_id,path\n" + "".join(f"s{i},p{i},s{i}.tif\n" for i in range(8)),
        "clinical": "patient_id,d\n" + "".join(f"p{i},{'ab'[i % 2]}\n" for i in range(8)),
        "expression": "gene,p0,p1\n" + "".join(f"{gene},1,2\n" for gene in genes),
        "folds": "patient_id,fold\n" + "".join(f"p{i},{i // 2 % 2}\n" for i in range(8)),
        "lengths": "gene\tlength\nTP53\t100\n",
        "sets": "a\tb\tTP53\tEGFR\n",
    }
    for index in range(8):
        (tmp_path / f"s{index}.tif").write_bytes(bytes([index]))
    for name, text in files.items():
        for stem in (name, f"{name}{bad}"):
            (tmp_path / f"{stem}.tsv" if name == "lengths" else tmp_path / f"{stem}.csv").write_text(text)
    for sample in ("p0", f"p1{bad}"):
        (tmp_path / "folder" / sample).mkdir(parents=True)
        (tmp_path / "folder" / sample / "x.htseq.counts").write_text("".join(f"{gene}\t5\n" for gene in genes))

    def config(**bads: str) -> dict:
        path = {name: str(tmp_path / f"{name}{bads.get(name, '')}.csv") for name in files}
        return {
            "results": str(tmp_path / "r"),
            "cohort": {"slides": path["slides"], "clinical": path["clinical"], "expression": path["expression"]},
            "tasks": {"d": {"type": "classification", "label": "d"}},
            "folds": {"n": 2, "file": path["folds"]},
            "transcriptome": {
                "matrix": {"gene_lengths": str(tmp_path / f"lengths{bads.get('lengths', '')}.tsv")},
                "gene_sets": {"tumor": path["sets"]},
            },
            "methods": {"run": ["msrl"], "msrl": {"model": {"groups": path["sets"]}}},
        }

    for slide in range(8):  # paths in the sheet are relative to where this runs
        for name in ("slides", f"slides{bad}"):
            sheet = tmp_path / f"{name}.csv"
            sheet.write_text(sheet.read_text().replace(f",s{slide}.tif", f",{tmp_path / f's{slide}.tif'}"))
    plan.load(config())
    for name in files:
        with pytest.raises(ConfigError) as caught:
            plan.load(config(**{name: bad}))
        assert "brace" in str(caught.value) or "breaks lines" in str(caught.value), name
    whole = config()
    whole["cohort"]["expression"] = str(tmp_path / "folder")
    with pytest.raises(ConfigError, match=r"brace|breaks lines"):
        plan.load(whole)


@pytest.mark.parametrize("bad", [*COMMANDS, "{batch}", "a\nb", "../x", "<script>", "a b", "é"])
def test_names_in_the_config_are_patterns_or_refused(bad):
    base = {"results": "r", "demo": {}}
    for changes in (
        {"tasks": {bad: {"type": "classification", "label": "diagnosis"}}},
        {"features": {"encoder": bad}},
        {"features": {"also": {bad: None}}},
        {"ablation": {"own": {bad: {"model": {"tokens": 2}}}}},
        {"methods": {"run": [bad]}},
        {"training": {"device": bad}},
        {"tissue": {"device": bad}},
    ):
        with pytest.raises(ConfigError):
            plan.load({**base, **changes})


@pytest.mark.parametrize(
    "bad", [name for name in COMMANDS if not name.startswith("--")] + ["{x}", "a\nb", "~/x", "s3://b"]
)
def test_a_results_folder_that_a_shell_would_read_is_refused(bad):
    with pytest.raises(ConfigError, match="results"):
        plan.load({"results": bad, "demo": {}})
