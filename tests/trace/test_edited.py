"""Results that were edited by hand, lie elsewhere, or have something of the user's own among them."""

from __future__ import annotations

import json
import shutil

import pytest

from histill.errors import HistillError
from histill.provenance import read_json, write_json
from histill.trace.run import trace

MODEL = "models/diagnosis/linear-slide/fold0-seed0/train"


def _edit(path, place, value) -> None:
    """Put a value at a place (keys) of a JSON file; None takes the key out."""
    content = read_json(path)
    *above, last = place
    inner = content
    for key in above:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    write_json(path, content)


@pytest.mark.parametrize(
    ("file", "place", "value"),
    [
        ("config.json", ("seeds",), "x"),
        ("config.json", ("methods", "run"), ["nothing-like-it"]),
        ("config.json", ("tasks", "diagnosis"), []),
        ("cohort/folds.json", ("n",), "2"),
        ("receipts/features.json", ("slides", 0, "outputs"), []),
        ("receipts/features.json", ("slides", 0, "slide"), 7),
        ("receipts/features.json", ("slides", 0, "software"), {}),
        ("receipts/cohort.json", ("outputs",), ["a"]),
        ("receipts/cohort.json", ("recipe",), 1.5),
        (f"{MODEL}/receipt.json", ("outputs",), None),
        (f"{MODEL}/receipt.json", ("inputs",), "x"),
        (f"{MODEL}/predictions.json", ("key",), None),
    ],
)
def test_an_edited_record_is_named(run, file, place, value):
    _edit(run / file, place, value)
    with pytest.raises(HistillError, match=file.rpartition("/")[2].replace(".", r"\.")) as caught:
        trace(run)
    assert caught.value.mend or "config.json" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000 + "]" * 100_000, "\x00"])
def test_a_record_that_is_none_is_named(run, content):
    (run / "receipts" / "cohort.json").write_text(content)
    with pytest.raises(HistillError, match=r"cohort\.json"):
        trace(run)


def test_keys_of_the_config_that_an_earlier_version_knew_do_no_harm(run):
    _edit(run / "config.json", ("of_old",), 1)
    found, _ = trace(run)
    assert not found["problems"]


def test_folders_of_the_results_may_lie_on_another_disk(run, tmp_path):
    for name in ("features", "models"):
        shutil.move(run / name, tmp_path / "disk" / name)
        (run / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "to model").symlink_to(run / MODEL)
    store = next((run / "features").glob("*/*"))
    assert trace(store)[0]["made_by"] == "features"
    assert trace(run / MODEL)[0]["made_by"] == "predict diagnosis linear-slide/train"
    found, _ = trace(run)
    assert not found["problems"]


def test_folders_of_the_users_own_among_the_models_are_no_runs(run):
    method = run / "models" / "diagnosis" / "linear-slide"
    shutil.copytree(method / "fold0-seed0", method / "fold0-seed0.bak")
    shutil.copytree(method, run / "models" / "diagnosis" / "my-method")
    shutil.copy(run / MODEL / "receipt.json", run / "models" / "diagnosis")
    found, _ = trace(run / "models")
    assert not found["problems"]
    assert not any("my-method" in step["name"] for step in found["steps"])
    for own in (method / "fold0-seed0.bak", run / "models" / "diagnosis" / "my-method" / "fold0-seed0" / "train"):
        with pytest.raises(HistillError, match="no stage of the workflow makes this"):
            trace(own)


@pytest.mark.parametrize("name", ["bundle.json", "prediction.json"])
@pytest.mark.parametrize("content", [{}, [], {"slide": {}, "files": 1}, {"members": 1, "task": []}])
def test_a_record_that_travelled_and_is_none_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(HistillError, match=f"{name} is not what histill writes"):
        trace(tmp_path)
