"""The page of a large cohort: its tables of slides are cut, and say where the others are."""

from __future__ import annotations

import pytest

from histill.batches import write_batch
from histill.config import complete
from histill.provenance import QUARANTINED, Receipt
from histill.report.stage import run
from tests.report.dom import Page

MOST = 200


def page(results, slides: int) -> Page:
    """Of so many slides that were set aside, with a warning and an amber light each."""
    names = [f"S{index:04d}" for index in range(slides)]
    amber = {"quality": {"light": "amber", "reasons": ["the slide is soft"]}}
    aside = [Receipt(name, "inspect", QUARANTINED, "recipe", warnings=["odd"], reason="unreadable") for name in names]
    write_batch(results / "receipts" / "inspect.json", "inspect", aside)
    lit = [Receipt(name, "tiles", QUARANTINED, "recipe", info=amber) for name in names]
    write_batch(results / "receipts" / "tiles.json", "tiles", lit)
    return Page(run(config=complete({"results": str(results), "cohort": {}}), results=results).read_text("utf-8"))


@pytest.mark.parametrize("slides", [MOST, MOST + 1_300])
def test_tables_of_slides_are_cut(tmp_path, slides):
    made = page(tmp_path, slides)
    for table in ("t-failures", "t-warnings", "t-lights"):
        assert len(made.rows(table)) == 1 + MOST
    said = [f"1 300 more are in receipts/{file}.json" in made.words for file in ("tiles", "<stage>")]
    assert said == [slides > MOST] * 2
