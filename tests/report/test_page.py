"""The report page on a fake finished run, and on runs with parts missing."""

from __future__ import annotations

import base64
import json
import re
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.batches import write_batch
from histill.config import complete
from histill.errors import HistillError
from histill.provenance import Receipt
from histill.redact import redact
from histill.report import slides, wording
from histill.report.stage import collect, run
from tests.evaluation.fake import write_cohort
from tests.report.dom import Page


@pytest.fixture(scope="module")
def text(full_run):
    config, results = full_run
    return run(config=config, results=results).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_sections_stand_in_the_order_a_reader_needs(page):
    sections = [section.get("id") for section in page.one("main")]
    head = ["summary", "cohort", "quality", "transcriptome", "throughput", "task-survival", "task-subtype"]
    assert sections == [*head, "heatmaps", "failures", "provenance", "audit"]


def test_the_page_loads_nothing(text, page):
    assert all(image.get("src").startswith("data:image/") for image in page.images)
    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", text)
    assert "@import" not in text
    assert not re.search(r"fetch|XMLHttp|import", page.one("script").text)


def test_values_are_escaped(text):
    assert "LUAD &lt;pilot&gt; &amp; more" in text
    assert "<pilot>" not in text


def test_no_machine_path_is_shown(text, full_run):
    _, results = full_run
    assert "/mnt/" not in text
    assert "private archive" not in text
    assert str(results) not in text
    assert "…/S06.svs" in text


def test_what_was_set_aside_is_shown_with_reason_and_mend(page):
    words = page.words
    assert "S06 quarantined inspect '…/S06.svs' has no resolution give mpp for S06 in …/slides.csv" in words
    assert "S07 empty tissue no tissue" in words
    assert "Slides ✕ failed Of 8, 1 slide could not be used and 1 slide held no usable tissue" in words
    assert "TIFF resolution says 0.25 µm per pixel" in words


def test_traffic_lights_worst_first(page):
    words = page.words
    assert "red : 1 slide, amber : 1 slide, green : 4 slides." in words
    assert words.index("S04 red only 3 tiles kept at 10x; soft") < words.index("S01 amber unusual stain: eosin is pale")
    assert "Slide quality ▲ look 1 slide with red light, 1 slide with amber light and 1 conflict between" in words


def test_numbers_of_the_cohort_and_the_evaluation(page, full_run):
    _, results = full_run
    words = page.words
    assert "with slide 50 10 60" in words
    assert "4 of 6 slides shown" in words
    assert "tiles 2 7.3 s 412" in words  # two benchmark tables of one rule
    assert "train survival abmil-train 1 1 min 15 s 412" in words
    assert "report 1 9 s" not in words
    report = json.loads((results / "evaluation/survival.json").read_text())
    value = report["paired"]["models"]["disentangled student"]["c_index"]
    shown = f"{value['value']:.3f} {value['low']:.3f} to {value['high']:.3f}"
    assert ["disentangled student", shown] == page.rows("t-metrics-survival")[2][:2]


def test_pictures_are_small_and_drawn_on(page):
    pictures = [image.get("src") for image in page.images if image.get("src").startswith("data:image/jpeg")]
    assert len(pictures) == 4
    for picture in pictures:
        data = base64.b64decode(picture.partition(",")[2])
        assert len(data) <= 40_000
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        blue = (decoded[..., 0].astype(int) - decoded[..., 2]) > 80
        assert blue.sum() > 50  # frames of kept tiles


def test_figures_of_each_task(page):
    (curves,) = page.alts("Kaplan-Meier")
    assert re.search(
        r"disentangled student: high risk \d+ patients, \d+ events, 0\.\d\d event-free at the end; low", curves
    )
    (roc,) = page.alts("ROC curves. Areas below them: disentangled student 0.")
    assert roc.count(";") == 5  # six models are drawn
    assert len(page.alts("Paired differences", "disentangled student less wsi-only +0.")) == 2
    assert len(page.alts("of the models with intervals")) == 2


def test_the_same_results_give_the_same_bytes(text, full_run):
    config, results = full_run
    assert run(config=config, results=results).read_text(encoding="utf-8") == text


def test_only_the_demo_carries_its_banner(text, full_run, tmp_path):
    config, results = full_run
    banner = "Synthetic demo cohort: not real patients"
    assert banner not in text
    shutil.copytree(results, tmp_path / "r")
    assert banner in run(config={**config, "demo": {}}, results=tmp_path / "r").read_text(encoding="utf-8")


def test_a_run_that_has_only_begun(full_run, tmp_path):
    config, _ = full_run
    words = Page.read(run(config=config, results=tmp_path)).words
    for sentence in (
        "No slide stage has run",
        "The cohort has not been put together yet",
        "has not been evaluated",
        "No times were recorded",
        "No transcriptome was given",
        "No leakage audit has run",
    ):
        assert sentence in words


def test_without_tasks_and_with_imported_features(full_run, tmp_path):
    config, results = full_run
    shutil.copytree(
        results, tmp_path / "r", ignore=shutil.ignore_patterns("slides", "evaluation", "tiles.json", "tissue.json")
    )
    (tmp_path / "r/receipts/inspect.json").unlink()
    (tmp_path / "r/receipts/transcriptome.json").unlink()
    changed = {**config, "tasks": {}, "features": {**config["features"], "source": "bags"}}
    words = Page.read(run(config=changed, results=tmp_path / "r")).words
    assert "The config names no task" in words
    assert "vectors imported from elsewhere" in words
    assert "the features were imported" in words


def test_counts_of_missing_values_are_no_vectors(tmp_path):
    counts = [{"slide": 1, "missing_values": 3}, {"slide": 1, "missing_values": 0}]
    receipts = [Receipt(f"s{n}", "features", "ok", "r", counts=own, info={"dim": 8}) for n, own in enumerate(counts)]
    write_batch(tmp_path / "receipts" / "features.json", "features", receipts)
    config = complete({"results": str(tmp_path), "cohort": {}, "features": {"source": "table", "table": "t.csv"}})
    assert collect(config, tmp_path)["features"] == {"groups": [["slide", 2]], "unreadable": 0, "dim": 8}


def test_one_model_alone_has_no_comparison(tmp_path):
    from histill.evaluation.stage import run as evaluate

    config = write_cohort(tmp_path, methods={"run": ["linear-slide"]})
    for row in config["tasks"]:
        evaluate(task=row, config=config, results=tmp_path)
    words = Page.read(run(config=config, results=tmp_path)).words
    assert "linear-slide" in words
    assert "Differences" not in words


def test_what_cannot_be_scored_is_shown_as_such(tmp_path):
    """Three seeds and no event at all: dashes and words instead of numbers, and no figure of metrics."""
    from histill.evaluation.stage import run as evaluate

    config = write_cohort(tmp_path, seeds=(0, 1, 2), methods={"run": ["disentangled", "wsi-only"]})
    config["tasks"].pop("subtype")
    table = pq.read_table(tmp_path / "cohort/patients.parquet").to_pydict()
    table["event:survival"] = [None if event is None else 0 for event in table["event:survival"]]
    pq.write_table(pa.table(table), tmp_path / "cohort/patients.parquet")
    evaluate(task="survival", config=config, results=tmp_path)
    page = Page.read(run(config=config, results=tmp_path))
    words = page.words
    assert page.rows("t-metrics-survival")[2][:2] == ["disentangled student", "–"]
    assert "The disentangled student has no interval; whether it is better than chance" in words
    assert "cannot be told" in words
    assert page.rows("t-km-survival")[1][-1] == "–"
    assert "hold no comparable pair" in words
    assert page.alts("of the models with intervals") == page.alts("Paired differences") == []


def test_a_broken_overview_is_named(full_run, tmp_path):
    config, results = full_run
    shutil.copytree(results, tmp_path / "r")
    (tmp_path / "r/slides/S00/overview.jpg").write_bytes(b"no picture")
    with pytest.raises(HistillError, match=r"S00/overview\.jpg is no readable picture"):
        run(config=config, results=tmp_path / "r")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/data/x/slides.csv", "…/slides.csv"),
        ("/data/with space/slides.csv", "…/slides.csv"),
        ("cannot open '/data/a b/s.svs': truncated", "cannot open '…/s.svs': truncated"),
        ("see /srv/h/s.svs, line 3", "see …/s.svs, line 3"),
        ("10x/20x and 1/2 of https://example.org/a/b", "10x/20x and 1/2 of https://example.org/a/b"),
        ("sheets/slides.csv", "sheets/slides.csv"),
        ({"a": ["/x/y/z", 3, None]}, {"a": ["…/z", 3, None]}),
    ],
)
def test_redact(given, shown):
    assert redact(given) == shown


def test_words_for_numbers():
    assert wording.number(-0.1234) == "−0.123"
    assert wording.number(None) == "–"
    assert wording.signed(0.5, 2) == "+0.50"
    assert wording.number(-0.0001) == "0.000"
    assert wording.signed(-0.0001) == "+0.000"
    assert [wording.duration(s) for s in (0.4213, 12.3, 200, 7500)] == ["0.42 s", "12 s", "3 min 20 s", "2 h 5 min"]
    assert wording.thousands(12345) == "12\u202f345"
    assert wording.percent(0.95) == "95\u00a0%"
    assert [wording.plain_p(value) for value in (None, 0.00049, 0.0123, 0.5)] == ["–", "<0.001", "0.012", "0.500"]
    assert [wording.listed(list(items)) for items in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert wording.estimate({"value": 0.5, "low": 0.4, "high": 0.6}, 0.9, 1) == "0.5 (90\u00a0% interval 0.4 to 0.6)"
    assert wording.estimate({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert wording.estimate(None) == "no value"
    metric = {"higher_is_better": False}
    entry = {"a": "x", "b": "y", "low": -0.2, "high": -0.1}
    assert wording.verdict(entry, metric) == "x is better"
    assert wording.verdict({**entry, "low": None}, metric) == "cannot be told"
    assert wording.verdict({**entry, "high": 0.1}, metric) == "no difference shown"


SQUARE = '{"features": [{"geometry": {"type": "Polygon", "coordinates": [[[90,60],[300,60],[300,240],[90,60]]]}}]}'


@pytest.mark.parametrize(
    ("edited", "outlined"),
    [("", False), ("3", False), ('{"features": [{"geometry": null}]}', False), ("\ufeff" + SQUARE, True)],
)
def test_an_edited_outline_costs_no_more_than_its_own_picture(tmp_path, edited, outlined):
    folder = tmp_path / "slides" / "a"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "overview.jpg"), np.full((30, 40, 3), 240, np.uint8))
    (folder / "tissue.geojson").write_text(edited, encoding="utf-8")
    items, _ = slides.gallery(tmp_path, {"a": {"width": 400, "height": 300, "mpp": {"x": 0.5}}}, 1)
    data = base64.b64decode(items[0]["uri"].partition(",")[2])
    drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert (drawn.min() < 150) == outlined
