"""A stage that writes something else for the same input must say so by its version.

A recipe holds the version: without a new one nothing reruns, and old and new results are mixed. After raising one:

    python -m pytest tests/test_golden.py --update-golden
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from histill.stages import MODELS, STAGES
from tests import golden_models, golden_pretrained, golden_stages

GOLDEN = Path(__file__).with_name("golden.json")
UPDATE = "python -m pytest tests/test_golden.py --update-golden"
# The page of the report is made of everything else and says nothing that a later stage reads: tests/report.
WITHOUT = {"report"}
STAGE_VERSIONS = {name: stage.version for name, stage in STAGES.items() if name not in WITHOUT}
MODEL_VERSIONS = {
    f"{method}/{name}": node.version for method, stages in MODELS.items() for name, node in stages.items()
}
VERSIONS = STAGE_VERSIONS | MODEL_VERSIONS
# (relative, absolute), by key: libraries differ in how they round, resample and compress.
CLOSE = (1e-3, 1e-5)
TOLERANCE = {
    "picture": (0.0, 1.5),
    "overview": (0.0, 1.5),
    "tissue_mm2": (1e-2, 0.0),
    "tissue": (1e-2, 0.0),
    "feature_mean": (1e-2, 5e-3),
    "feature_std": (1e-2, 5e-3),
}


def before(stage: str) -> set[str]:
    """A stage and all whose output its golden input is made of."""
    found = {stage}
    for name in STAGES[stage].after if stage in STAGES else ():
        # What a model predicts is not read by the golden input of `evaluate`.
        found |= before(name) if stage != "evaluate" else set()
    return found


def differences(stored: Any, found: Any, tolerance: tuple[float, float] = CLOSE, at: str = "") -> list[str]:
    """Where two values differ, one line each: fractions by the tolerance of their key, everything else exactly."""
    if isinstance(stored, dict) and isinstance(found, dict):
        keys = sorted(stored.keys() | found.keys())
        pairs = ((key, stored.get(key, "absent"), found.get(key, "absent")) for key in keys)
        return [line for key, a, b in pairs for line in differences(a, b, TOLERANCE.get(key, tolerance), f"{at}/{key}")]
    if isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        pairs = enumerate(zip(stored, found, strict=True))
        return [line for index, (a, b) in pairs for line in differences(a, b, tolerance, f"{at}/{index}")]
    if isinstance(stored, float) and isinstance(found, int | float) and not isinstance(found, bool):
        close = math.isclose(stored, found, rel_tol=tolerance[0], abs_tol=tolerance[1])
        return [] if close else [f"{at}: {stored} became {found}"]
    return [] if stored == found else [f"{at}: {stored!r} became {found!r}"]


def raised(stage: str, golden: dict[str, Any], versions: dict[str, int]) -> list[str]:
    """Stages, of this one and those before it, whose version is another than that of their golden values."""
    return [name for name in sorted(before(stage)) if golden.get(name, {}).get("version") != versions[name]]


def problems(stage: str, golden: dict[str, Any], versions: dict[str, int], values: dict[str, Any]) -> list[str]:
    """What is wrong with the values of a stage, one line each."""
    new = raised(stage, golden, versions)
    if new:
        return [f"there are no golden values of this version of {', '.join(new)}; run: {UPDATE}"]
    found = differences(golden[stage]["values"], values)
    return ["its output changed: raise its version in histill.stages", *found] if found else []


def compute(stage: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Values of a stage and of those that come with it: stage -> values."""
    if stage in ("inspect", "tissue", "tiles", "features"):
        return golden_stages.slide_stages(folder)
    if stage in golden_models.LINEAR:
        return {stage: golden_models.linear(golden_models.LINEAR[stage])}
    method = stage.split("/")[0]
    if method in ("mirror", "msrl", "retrieval"):
        return getattr(golden_pretrained, method)()
    if stage in MODEL_VERSIONS:
        return golden_models.networks()
    if stage == "predict":
        return {stage: golden_models.predict(folder)}
    return {stage: getattr(golden_stages, stage)(folder)}


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Values by stage, each computed once, as JSON gives them back."""
    cache: dict[str, dict[str, Any]] = {}

    def values(stage: str) -> dict[str, Any]:
        if stage not in cache:
            made = compute(stage, tmp_path_factory.mktemp("golden"))
            cache.update(json.loads(json.dumps(made)))
        return cache[stage]

    return values


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """As they were before this run: an update of one stage must not make the next one's change look unannounced."""
    return json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}


def write(stage: str, version: int, values: dict[str, Any]) -> None:
    """Store a stage's values; those of stages that are no more go."""
    stored = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    stored[stage] = {"version": version, "values": values}
    text = [f"{json.dumps(name)}: {json.dumps(stored[name])}" for name in VERSIONS if name in stored]
    GOLDEN.write_text("{\n" + ",\n".join(text) + "\n}\n", encoding="utf-8")


@pytest.mark.parametrize("stage", VERSIONS)
def test_output_changes_only_with_the_version(stage, computed, golden, pytestconfig):
    values = computed(stage)
    found = problems(stage, golden, VERSIONS, values)
    update = pytestconfig.getoption("update_golden")
    if found and (update == "force" or (update and raised(stage, golden, VERSIONS))):
        write(stage, VERSIONS[stage], values)
    else:
        assert not found, f"stage '{stage}': " + "\n  ".join(found[:12])


def test_a_change_is_told_and_a_new_version_asks_for_new_values(golden):
    stage = "tiles"
    values = copy.deepcopy(golden[stage]["values"])
    assert problems(stage, golden, VERSIONS, values) == []
    values["counts"]["kept_10x"] += 1
    values["kept"].append(63)
    found = problems(stage, golden, VERSIONS, values)
    assert found[0].startswith("its output changed: raise its version")
    assert any("/counts/kept_10x" in line for line in found)
    assert any("/kept" in line for line in found)
    for name in ("tiles", "tissue"):
        newer = VERSIONS | {name: VERSIONS[name] + 1}
        assert raised(stage, golden, newer) == [name]
        assert UPDATE in problems(stage, golden, newer, values)[0]


def test_numbers_are_compared_with_tolerance_and_all_else_exactly():
    stored = {"a": [1.0, 2.0], "n": 3, "none": None}
    assert differences(stored, {"a": [1.0005, 2.0], "n": 3, "none": None}) == []
    assert differences(stored, {"a": [1.01, 2.0], "n": 3, "none": None}) == ["/a/0: 1.0 became 1.01"]
    assert len(differences(stored, {"a": [1.0], "n": 4, "b": 1})) == 4
    assert differences({"picture": [200.0]}, {"picture": [201.2]}) == []
    assert len(differences({"picture": [200.0]}, {"picture": [202.0]})) == 1
