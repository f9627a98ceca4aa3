"""Two painted slides, what the slide stages make of them, and whether long tests were asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from histill.cohort.sheets import Slide
from histill.config import complete
from histill.demo.design import design, slide_path
from histill.demo.make import paint_slide
from histill.features import extract
from histill.provenance import Receipt
from histill.slides import inspect, segment, tile

STAGES = (inspect, segment, tile, extract)


@pytest.fixture(scope="session")
def asked_for() -> None:
    """Skips tests that take minutes, unless HISTILL_FAULTS=1."""
    if os.environ.get("HISTILL_FAULTS") != "1":
        pytest.skip("takes minutes; set HISTILL_FAULTS=1")


@pytest.fixture(scope="session")
def slides(tmp_path_factory) -> list[Slide]:
    """Two flawless slides of the synthetic cohort."""
    folder = tmp_path_factory.mktemp("painted")
    designed = [slide for one in design({"patients": 8, "seed": 1, "size_px": 896}) for slide in one.slides]
    clean = [one for one in designed if one.resolution_known and not (one.corrupt or one.pen or one.blurred)][:2]
    for one in clean:
        path = slide_path(folder, one.slide_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        paint_slide(one, folder)
    return [Slide(one.slide_id, one.slide_id, str(slide_path(folder, one.slide_id))) for one in clean]


def extracted(slides: list[Slide], results: Path, options: dict[str, Any] | None = None) -> list[Receipt]:
    """Receipts of the last of the slide stages, all of which run here, under the config's `options`."""
    config = complete({"results": str(results), "cohort": {}, **(options or {})})
    for stage in STAGES:
        receipts = stage.run(slides, config=config, results=results)
    return receipts


@pytest.fixture(scope="session")
def undisturbed(slides, tmp_path_factory) -> Path:
    """Results of the slide stages."""
    results = tmp_path_factory.mktemp("undisturbed")
    assert [receipt.state for receipt in extracted(slides, results)] == ["ok", "ok"]
    return results


def followed(run, then):
    """`run`, and `then` when it has ended."""

    def wrapped(*args, **options):
        done = run(*args, **options)
        then()
        return done

    return wrapped
