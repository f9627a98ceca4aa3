"""Names from sheets are text in every page: they make no element, no attribute, no link and no script."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.bundle import card
from histill.evaluation.stage import run as evaluate
from histill.report import stage
from histill.report.stage import run as report
from tests.evaluation.fake import write_cohort
from tests.report.conftest import write_slides
from tests.report.dom import Page

HARM = [
    "<script>alert(1)</script>",
    '"onload="alert(1)',
    "'><img src=x onerror=alert(1)>",
    "</style></title><svg onload=alert(1)>",
    "[a](javascript:alert(1))",
    "{{7*7}}{% raw %}",
    "$\\frac{1$ _^{",
    "]]>-->&lt;b&gt;",
]
ALL = " ".join(HARM)
ADDRESSES = re.compile(r"(data:image/|#|https?://|mailto:)")


def is_harmless(text: str, scripts: int) -> Page:
    """A page in which nothing came from a name: as many scripts as there are, no handler, no odd address."""
    page = Page(text)
    assert len(page.all("script")) == scripts
    for element in page.root.iter():
        if not isinstance(element.tag, str):
            continue
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on"), (element.tag, name)
            if name in ("src", "href", "xlink:href", "action", "srcdoc", "formaction"):
                assert ADDRESSES.match(value), value
    assert not any("alert(1)" in (script.text or "") for script in page.all("script", "style"))
    return page


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """A value with its texts changed, at any depth; keys, states and digests are left."""
    if isinstance(value, dict):
        kept = {"state", "stage", "recipe", "slide", "light", "path", "reader", "source"}
        return {key: own if key in kept else changed(own, change) for key, own in value.items()}
    if isinstance(value, list):
        return [changed(entry, change) for entry in value]
    return change(value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """(config, results) whose classes, sites, reasons, warnings and title hold all of `HARM`."""
    results = tmp_path_factory.mktemp("hostile") / "results"
    config = write_cohort(results, classes=(ALL, f"other {ALL}"), report={"title": ALL, "max_slides": 4})
    table = pq.read_table(results / "cohort" / "patients.parquet").to_pydict()
    table["site"] = [f"{ALL} {index % 3}" for index in range(len(table["patient_id"]))]
    pq.write_table(pa.table(table), results / "cohort" / "patients.parquet")
    for task in config["tasks"]:
        evaluate(task=task, config=config, results=results)
    write_slides(results)
    for path in (results / "receipts").rglob("*.json"):
        path.write_text(json.dumps(changed(json.loads(path.read_text()), lambda text: f"{text} {ALL}")))
    return config, results


def test_the_report(hostile):
    text = report(config=hostile[0], results=hostile[1]).read_text(encoding="utf-8")
    templates = Path(stage.__file__).parent.rglob("*.j2")
    page = is_harmless(text, sum(path.read_text(encoding="utf-8").count("<script") for path in templates))
    for harm in HARM:
        assert " ".join(harm.split()) in page.words, harm
    assert "<script>alert" not in text
    for figure in (hostile[1] / "figures").rglob("*.svg"):
        for element in ElementTree.parse(figure).iter():
            assert not element.tag.endswith(("script", "foreignObject", "}a")), figure
            assert not any(name.lower().startswith("on") for name in element.attrib), figure


@pytest.mark.parametrize("harm", HARM)
def test_cells_of_a_model_card(harm):
    shown = card._cell(f"{harm}\n|x")
    assert "<" not in shown
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[|`\[\]]", shown)


@pytest.mark.parametrize("folder", ["report", "bundle"])
def test_templates_mark_nothing_as_safe_but_what_the_program_made(folder, root):
    """Every value is escaped; the exceptions are named here."""
    made = {"style", "script", "svg", "data", "plotly"}
    for path in (root / "src" / "histill" / folder).rglob("*.html.j2"):
        for name in re.findall(r"{{-? *([\w.]+)[^}]*\|\s*safe", path.read_text(encoding="utf-8")):
            assert name.split(".")[-1] in made, f"{path.name}: {name}"
        assert "autoescape false" not in path.read_text(encoding="utf-8")
