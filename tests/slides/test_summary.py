import json

import numpy as np
import pytest

from histill.slides import summary, table
from histill.slides.quality import FLAGS

STAIN = {"macenko": {}, "unusual": [], "reason": None}


def tiles(number=100, kept=True, **flagged):
    """A table of `number` 10x tiles all on tissue; flag=how many carry it."""
    magnification = np.repeat(["10x", "20x"], [number, 4 * number])
    columns = {"magnification": magnification, "tissue": np.ones(5 * number, np.float32)}
    for flag in FLAGS:
        first = np.arange(number) < flagged.get(flag, 0)
        columns[flag] = np.concatenate([first, np.repeat(first, 4)])
    columns["pen_colour"] = np.where(columns["pen"], "red", "")
    columns["keep"] = np.full(5 * number, kept)
    return columns


@pytest.mark.parametrize(
    ("flagged", "light"),
    [
        ({}, "green"),
        ({"pen": 10}, "green"),
        ({"pen": 11}, "amber"),
        ({"blur": 51}, "red"),
        ({"blood": 80, "white": 80}, "green"),
        ({"fold": 80}, "amber"),
        ({"number": 9}, "red"),
        ({"kept": False}, "red"),
    ],
)
def test_lights_of_flags(flagged, light):
    found = summary.summarise(tiles(**flagged), stain=STAIN)
    assert found["light"] == light
    assert bool(found["reasons"]) == (light != "green")


def test_other_reasons():
    def reasons(**facts):
        found = summary.summarise(tiles(), **facts)
        assert found["light"] == "amber"
        return " ".join(found["reasons"])

    assert "soft" in reasons(sharpness=np.full(100, 0.8))
    assert "conflict" in reasons(conflicts=["a says 0.25, b says 0.5"])
    assert "unusual stain: x" in reasons(stain=STAIN | {"unusual": ["x"]})
    assert "cannot be told apart: few" in reasons(stain={"macenko": None, "unusual": [], "reason": "few"})
    assert summary.summarise(tiles(), sharpness=np.array([np.nan, 4.0]))["focus"] == {
        "judged": 1,
        "median": 4,
        "p10": 4,
    }


def test_shares_are_of_tissue_and_overlap_is_counted_once():
    columns = tiles(pen=20, blur=20)
    columns["tissue"][:10] = 0.5
    found = summary.summarise(columns, tissue_mm2=1.23456, stain=STAIN)
    assert found["10x"]["share"]["pen"] == found["10x"]["share"]["artefact"] == round(15 / 95, 4)
    assert found["10x"]["pen_colours"] == {"red": 20, "green": 0, "blue": 0, "black": 0}
    assert found["20x"]["flagged"]["blur"] == 80
    assert found["tissue_mm2"] == 1.2346


def test_an_empty_table_is_red_and_json():
    found = summary.summarise(table.empty(), sharpness=np.full(3, np.nan), tissue_mm2=0.0)
    assert found["light"] == "red"
    json.dumps(found, allow_nan=False)
