"""The page in a real browser: it renders, in light and dark, and its pictures are drawn."""

from __future__ import annotations

import shutil
import subprocess

import cv2
import numpy as np
import pytest

from histill.report.stage import run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH"),
]
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@pytest.fixture(scope="module")
def report(full_run):
    config, results = full_run
    return run(config=config, results=results)


def browse(report, folder, *options):
    command = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, report.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def screenshot(report, folder, *options):
    path = folder / "page.png"
    browse(report, folder, "--window-size=1200,7000", f"--screenshot={path}", *options)
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def test_dom_holds_every_section(report, tmp_path):
    dom = browse(report, tmp_path, "--dump-dom")
    for section in ("summary", "cohort", "slides", "transcriptome", "task-survival", "task-subtype", "provenance"):
        assert f'id="{section}"' in dom
    assert dom.count("data:image/jpeg") == 4


def test_light_page_shows_text_tissue_and_curves(report, tmp_path):
    picture = screenshot(report, tmp_path)
    assert picture[2, 2].tolist() == [255, 255, 255]
    pink = np.abs(picture.astype(int) - (200, 120, 186)).max(2) < 25  # tissue of the thumbnails (BGR)
    vermilion = np.abs(picture.astype(int) - (0, 94, 213)).max(2) < 10  # high-risk curves and the student's bars
    assert pink.sum() > 2000
    assert vermilion.sum() > 500


def test_dark_page_follows_the_system(report, tmp_path):
    picture = screenshot(report, tmp_path, "--force-dark-mode")
    assert picture[2, 2].max() < 60
    assert (picture[:400].min(2) > 200).sum() > 500  # light text on it
