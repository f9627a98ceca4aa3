"""The page in a real browser: light and dark, wide and narrow, on paper; its pictures are drawn."""

from __future__ import annotations

import re
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


def browse(page, folder, *options):
    command = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def screenshot(page, folder, *options, size="1200,7000"):
    path = folder / "page.png"
    browse(page, folder, f"--window-size={size}", f"--screenshot={path}", *options)
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def asked(page, folder, script, *options):
    """What a line of JavaScript says of the page, by the title of a copy."""
    copy = folder / "asked.html"
    line = f"<script>document.title = String({script});</script></body>"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", line), encoding="utf-8")
    return re.search(r"<title>(.*?)</title>", browse(copy, folder, "--dump-dom", *options))[1]


def printed(page, folder):
    """How many sheets of paper the page fills."""
    path = folder / "page.pdf"
    browse(page, folder, "--no-pdf-header-footer", f"--print-to-pdf={path}")
    return len(re.findall(rb"/Type\s*/Page\b", path.read_bytes()))


def test_dom_holds_every_section(report, tmp_path):
    dom = browse(report, tmp_path, "--dump-dom")
    for section in ("summary", "cohort", "quality", "transcriptome", "task-survival", "task-subtype", "provenance"):
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
    vermilion = np.abs(picture.astype(int) - (0, 94, 213)).max(2) < 20  # figures keep their colours on a light card
    assert vermilion.sum() > 500


def test_the_button_changes_the_theme_and_back(report, tmp_path):
    ground = "getComputedStyle(document.body).backgroundColor"
    button = "document.getElementById('theme')"
    pressed = f"({button}.click(), {ground})"
    line = f"[{ground}, {button}.textContent, {pressed}, {pressed}].join('|')"
    white, black = "rgb(255, 255, 255)", "rgb(20, 24, 29)"
    assert asked(report, tmp_path, line) == f"{white}|Dark theme|{black}|{white}"
    assert asked(report, tmp_path, line, "--force-dark-mode") == f"{black}|Light theme|{white}|{black}"


def test_a_narrow_window_scrolls_tables_and_not_the_page(report, tmp_path):
    said = asked(report, tmp_path, "[innerWidth, document.documentElement.scrollWidth]", "--window-size=400,900")
    inner, scrolled = map(int, said.split(","))
    assert scrolled <= inner <= 500
    picture = screenshot(report, tmp_path, size="400,3000")
    assert picture.shape[1] == 400
    assert (picture[:1500].max(2) < 90).sum() > 2000  # text


def test_contents_stay_in_sight_where_there_is_room(report, tmp_path):
    place = "document.querySelector('nav').getBoundingClientRect().top"
    scroll = f"(document.getElementById('provenance').scrollIntoView(), {place})"
    assert float(asked(report, tmp_path, scroll, "--window-size=1300,900")) == 0


def test_paper_shows_what_is_folded_on_the_screen(report, tmp_path):
    sheets = printed(report, tmp_path)
    folded = tmp_path / "folded.html"
    folded.write_text(report.read_text(encoding="utf-8").replace("details::details-content", "details::none"))
    assert sheets > printed(folded, tmp_path) > 3
