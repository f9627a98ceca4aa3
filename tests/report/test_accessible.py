"""The page's document: landmarks, order of headings, tables, alternative texts, links, and contrast in both themes."""

from __future__ import annotations

import itertools
import re

import pytest

from histill.report.page import TEMPLATES
from histill.report.stage import run
from tests.report.dom import HEADINGS, Page, said

CONTRAST = 4.5  # WCAG 2.2, level AA, of text
INKS = ("ink", "muted", "accent", "amber", "bad", "good")
GROUNDS = ("paper", "panel", "note", "main")
DECORATION = ("line", "edge", "card", "swatch")  # no text is drawn in them, and none stands on the card of a figure


@pytest.fixture(scope="module")
def text(whole_run):
    config, results = whole_run
    return run(config=config, results=results).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_is_well_formed_and_its_references_resolve(page, text):
    assert len(page.ids) == len(set(page.ids))
    links = [link.get("href") for link in page.links]
    assert all(link.startswith("#") and link[1:] in page.ids for link in links)
    labels = [element.get("aria-labelledby") for element in page.root.iter() if element.get("aria-labelledby")]
    assert set(labels) <= set(page.ids)
    assert text.startswith("<!doctype html>")
    assert page.one("html").get("lang") == "en"


def test_landmarks_and_the_skip_link(page):
    for landmark in ("header", "nav", "main", "footer"):
        assert page.one(landmark) is not None
    assert page.one("nav").get("aria-label") == "Contents"
    first = next(element for element in page.root.iter() if element.tag in ("a", "button", "summary"))
    assert first.get("class") == "skip"
    for section in page.one("main"):
        assert section.tag == "section"
        heading = page.by_id(section.get("aria-labelledby"))
        assert heading.tag == "h2"
        assert said(heading)


def test_headings_nest(page):
    levels = [HEADINGS.index(heading.tag) + 1 for heading in page.all(*HEADINGS)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_table_of_contents_is_in_the_order_of_the_page(page):
    listed = [link.get("href")[1:] for link in page.one("nav").iter("a")]
    assert listed == [name for name in page.ids if name in listed]
    assert set(listed) >= {section.get("id") for section in page.one("main")}


def test_every_figure_says_in_numbers_what_it_shows(page):
    assert len(page.images) > 20
    for image in page.images:
        assert re.search(r"\d", image.get("alt")), image.get("alt")
        assert len(image.get("alt")) > 30


def test_tables_have_captions_headers_and_can_be_reached(page):
    regions = [element for element in page.root.iter() if element.get("role") == "region"]
    assert all(region.get("tabindex") == "0" for region in regions)
    assert len(regions) == len(page.all("table")) > 20
    for table in page.all("table"):
        assert table[0].tag == "caption"
        assert said(table[0])
        assert table[1].tag == "thead"
        assert all(cell.get("scope") for cell in table.iter("th"))
        assert all(row.find("th") is not None or table.find(".//th[@rowspan]") is not None for row in table.iter("tr"))


def test_numbers_of_a_column_stand_right_with_the_same_decimals(page):
    checked = 0
    for body in [body for table in page.all("table") for body in table.iter("tbody")]:
        columns: dict[int, set[int]] = {}
        for row in body.iter("tr"):
            for place, cell in enumerate(row.iter("td")):
                if (strong := cell.find("strong")) is not None and re.fullmatch(r"[−+]?\d+\.\d+", strong.text):
                    assert cell.get("class") == "n"
                    columns.setdefault(place - len(list(row.iter("td"))), set()).add(len(strong.text.partition(".")[2]))
        assert all(len(decimals) == 1 for decimals in columns.values())
        checked += len(columns)
    assert checked > 30


def test_nothing_is_said_by_colour_alone(page):
    tags = [element for element in page.root.iter("span") if "tag" in (element.get("class") or "").split()]
    assert len(tags) > 5
    assert all(re.search(r"\w", said(tag)) for tag in tags)
    states = {said(tag) for tag in page.by_id("summary").iter("span") if "tag" in (tag.get("class") or "").split()}
    assert states <= {"✓ fine", "▲ look", "✕ failed", "– not run"}


def test_the_page_works_without_its_script(page):
    assert len(page.all("script")) == 1
    assert page.by_id("theme").get("hidden") is not None
    assert len(page.one("script").text) < 700


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(scope="module")
def style():
    return (TEMPLATES / "style.css").read_text()


def test_contrast_of_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_ink_can_be_read_on_every_ground(style, theme):
    colours = {
        name: pair for name, *pair in re.findall(r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", style)
    }
    assert set(colours) == {*INKS, *GROUNDS, *DECORATION} - {"swatch"}
    for ink, ground in itertools.product(INKS, GROUNDS):
        found = contrast(colours[ink][theme], colours[ground][theme])
        assert found >= CONTRAST, f"--{ink} on --{ground}: {found:.2f}"


def test_text_and_grounds_are_drawn_in_those_colours_only(style):
    rules = style[style.index("* { box-sizing") :]
    assert not re.search(r"#[0-9a-f]{3,8}\b", rules.replace("#theme", ""))
    assert set(re.findall(r"(?<![-\w])color: ([^;]+);", rules)) == {f"var(--{ink})" for ink in INKS}
    grounds = set(re.findall(r"background: ([^;]+);", rules))
    assert grounds == {f"var(--{name})" for name in (*GROUNDS, "card", "swatch")}
    assert ":focus-visible { outline: 3px solid" in rules
