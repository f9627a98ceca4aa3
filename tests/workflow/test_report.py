"""Snakemake's own report of the finished small cohort, made without a network: it holds the page and the tables."""

from __future__ import annotations

import zipfile

import pytest

pytestmark = pytest.mark.workflow
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def archive(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "account.zip"
    finished.snakemake("--report", str(path), **NO_NETWORK)
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_it_holds_the_page_the_tables_and_the_figures(archive, finished):
    page = (finished.work / "results" / "report.html").read_bytes()
    assert page in archive.values()
    figures = sorted((finished.work / "results" / "figures" / "diagnosis").glob("*.svg"))
    assert {path.stem for path in figures} >= {"metrics", "differences", "roc", "calibration", "decision-curves"}
    assert all(path.read_bytes() in archive.values() for path in figures)
    assert (finished.work / "results" / "evaluation" / "diagnosis.tsv").read_bytes() in archive.values()


def test_results_have_captions_categories_and_labels(archive):
    text = archive["account/report.html"].decode()
    for category in ("Report", "Evaluation", "Figures"):
        assert f'"{category}"' in text
    for words in (
        "All findings of the run on one self-contained page",
        "Metrics of every model",
        "patient-level folds",
    ):
        assert words in text
    assert "snakemake.config" not in text
