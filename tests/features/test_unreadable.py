"""Slides none of whose tiles can be used: no bag may have them."""

from __future__ import annotations

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from histill.cohort.sheets import Slide
from histill.config import complete
from histill.encoders import recipes
from histill.features import extract
from histill.features.chosen import Chosen
from histill.features.imports import import_bags
from histill.features.store import Group, write_store
from histill.provenance import Receipt


@pytest.mark.parametrize(
    ("valid", "state", "reason", "warnings"),
    [
        ([False] * 5, "empty", "none of 25 tiles could be read", []),
        ([False, False, True, False, False], "ok", None, ["20 of 25 tiles could not be read"]),
        ([True] * 5, "ok", None, []),
        ([], "empty", "no tile is kept", []),
    ],
)
def test_extraction_without_a_readable_tile_is_empty(tmp_path, valid, state, reason, warnings):
    """A store that an earlier run completed is read for no more than its record."""
    config = complete({"results": str(tmp_path), "cohort": {}, "features": {"encoder": "colour-texture"}})
    (chosen,) = [Chosen.of(name, given, config, tmp_path) for name, given in recipes.chosen(config).items()]
    groups = {
        level: Group(np.ones((len(flags), 3), np.float16), np.zeros((len(flags), 2)), {"valid": flags})
        for level, flags in (("10x", np.array(valid, bool)), ("20x", np.repeat(np.array(valid, bool), 4)))
    }
    record = write_store(tmp_path / "s.zarr", groups, {})
    receipt = Receipt("s", "features", "ok", "recipe")
    job = SimpleNamespace(records={chosen.name: record}, notes=[])
    extract._fill(receipt, job, Slide("s", "p", "s.svs"), [chosen])
    assert receipt.state == state
    assert reason is None or receipt.reason.startswith(reason)
    assert bool(receipt.mend) == (state == "empty")
    assert receipt.warnings == [*chosen.off_recipe, *warnings]


def test_a_bag_all_of_whose_rows_are_flagged_in_its_file_is_quarantined(tmp_path):
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as handle:
        handle["X"] = np.ones((3, 4), np.float32)
        handle["obsm/spatial"] = np.arange(6).reshape(3, 2)
        handle["obs/valid"] = np.zeros(3, bool)
        handle.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    (receipt,) = import_bags([Slide("a", "p", str(path))], name="other", results=tmp_path, recipe="r")
    assert receipt.state == "quarantined"
    assert receipt.reason == f"{path}: every row holds a value that is not finite, or is flagged as unreadable"
    assert receipt.outputs == {}
    assert not (tmp_path / "features").exists(), "no store is left of it"
