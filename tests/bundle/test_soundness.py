"""Bundles whose digests are right and whose content is not: refused when read, whatever is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from histill.bundle import manifest
from histill.bundle.bundle import Bundle
from histill.errors import HistillError
from histill.provenance import read_json
from histill.stages import MODELS
from tests.bundle.conftest import RUN

CONFIG, MODEL, SCALING = (f"members/0/{name}" for name in manifest.MEMBER_FILES)
NETWORK, LINEAR = ("os", "abmil", "train"), ("os", "linear-slide", "train")


@pytest.fixture
def changed(exported, tmp_path) -> Callable[..., Path]:
    """Function that copies a bundle, changes one file, and writes bundle.json anew, as who made the file would."""

    def make(of: tuple, name: str, change: Callable) -> Path:
        folder = Path(shutil.copytree(exported(*of), tmp_path / "bundle"))
        about = read_json(folder / "bundle.json")
        if name == "bundle.json":
            change(about)
        elif name.endswith(".json"):
            content = read_json(folder / name)
            (folder / name).write_text(json.dumps(change(content) or content))
        else:
            arrays = load_file(folder / name)
            change(arrays)
            save_file({key: np.asarray(value, order="C") for key, value in arrays.items()}, folder / name)
        for key in ("format", "files", "digest"):
            del about[key]
        manifest.write(folder, about)
        return folder

    return make


def put(key: str, value: Callable | object) -> Callable[[dict], None]:
    """Change that puts a value, or what a function makes of the old one, at the first key that ends so."""

    def change(content: dict) -> None:
        own = next(name for name in sorted(content) if name.endswith(key))
        content[own] = value(content[own]) if callable(value) else value

    return change


def nan(array: np.ndarray) -> np.ndarray:
    return np.full_like(array, np.nan)


@pytest.mark.parametrize(
    ("of", "name", "change", "says"),
    [
        (NETWORK, MODEL, put("", nan), "weights: a value is no finite number"),
        (NETWORK, MODEL, put("", lambda array: array[:1]), "size mismatch|in place of"),
        (NETWORK, MODEL, lambda arrays: arrays.clear(), "Missing key"),
        (NETWORK, SCALING, put("", nan), "scaling of 10x: a value is no finite number"),
        (NETWORK, SCALING, lambda arrays: arrays.clear(), "KeyError"),
        (NETWORK, CONFIG, lambda content: content["arguments"].update(dim=10**9), "cannot be used"),
        (NETWORK, CONFIG, lambda content: content["arguments"].update(evil=1), "evil"),
        (NETWORK, CONFIG, lambda content: content["arguments"]["features"].update({"10x": 5}), "the network reads"),
        (NETWORK, CONFIG, lambda content: [content], "cannot be used"),
        (NETWORK, CONFIG, lambda content: content["labels"].pop("edges") and None, "edges"),
        (LINEAR, MODEL, put("coefficients", nan), "weights: a value is no finite number"),
        (LINEAR, MODEL, put("coefficients", lambda array: array[:1]), "cannot be used"),
        (LINEAR, MODEL, put("baseline", lambda array: array[:1]), "survival: of shape"),
        (LINEAR, "reference.safetensors", put("distances", nan), "no finite number"),
        (LINEAR, "reference.safetensors", put("distances", lambda array: array[::-1]), "quantiles do not rise"),
        (LINEAR, "reference.safetensors", put("outputs", lambda array: array[:, :5]), "outputs: of shape"),
        (LINEAR, "reference.safetensors", put(".variances", np.negative), "a variance is not positive"),
        (LINEAR, "reference.safetensors", put(".centre", lambda array: array[:3]), "cannot be"),
        (LINEAR, "reference.safetensors", put("survival.times", lambda array: array + 1), "its times are not"),
        (LINEAR, "reference.safetensors", lambda arrays: arrays.pop("distances"), "KeyError"),
        (LINEAR, "bundle.json", lambda about: about["levels"].update({"40x": 5}), "magnifications|cannot be used"),
        (LINEAR, "bundle.json", lambda about: about.update(times=about["times"][::-1]), "times do not rise"),
        (LINEAR, "bundle.json", lambda about: about["members"][0].update(risk=None), "members.0.risk"),
        (LINEAR, "bundle.json", lambda about: about["recipe"].update(weights=5), "recipe.weights"),
    ],
)
def test_what_cannot_be_used_is_refused_when_it_is_read(changed, of, name, change, says):
    with pytest.raises(HistillError, match=rf"(?s)(?:{says}).*get the bundle again"):
        Bundle.read(changed(of, name, change))


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"format": ' + b"9" * 5000 + b"}", b"\xff"])
def test_a_description_that_is_no_json_is_refused(changed, content):
    folder = changed(LINEAR, "bundle.json", lambda about: None)
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(HistillError, match=r"bundle.json cannot be read.*\n.*get the bundle again"):
        Bundle.read(folder)


def test_a_link_to_itself_is_refused(changed):
    folder = changed(LINEAR, "bundle.json", lambda about: None)
    (folder / MODEL).unlink()
    (folder / MODEL).symlink_to("model.safetensors")
    with pytest.raises(HistillError, match=f"{MODEL} is no plain file"):
        Bundle.read(folder)


def test_no_bundle_names_files_of_the_machine_that_reads_it(changed):
    def point(about: dict) -> None:
        about["options"]["tissue"]["weights"] = about["options"]["features"]["weights"] = "/etc/passwd"

    options = Bundle.read(changed(LINEAR, "bundle.json", point)).options
    assert options["tissue"]["weights"] is None
    assert options["features"]["weights"] is None


def test_a_slide_that_gets_no_number_is_refused(exported, monkeypatch):
    bundle = Bundle.read(exported(*LINEAR))
    monkeypatch.setattr(Bundle, "check_bags", lambda *_: None)
    monkeypatch.setattr(Bundle, "cohort", lambda *_: None)
    said = {"risk": np.array([np.nan]), "s:1.0": np.array([0.5])}
    monkeypatch.setattr(Bundle, "_table", lambda *_: said)
    with pytest.raises(HistillError, match="a member's prediction is no finite number"):
        bundle.predict(type("Bags", (), {"slides": {"a": ["a"]}})())


ALONE = [(m, s) for m in RUN for s, own in MODELS[m].items() if own.reads == ("slide",) and own.labels]


@pytest.mark.parametrize(("method", "stage"), [one for one in ALONE if one[0] != "retrieval"])
def test_every_stage_that_can_be_exported_is_sound(exported, method, stage):
    assert len(Bundle.read(exported("os", method, stage)).members) == 2
