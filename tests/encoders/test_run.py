"""Weights in a run: a node of the DAG before extraction, and their digests in what extraction writes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml

from histill import plan
from histill.cohort.sheets import Slide
from histill.config import complete
from histill.errors import ConfigError
from histill.features import extract
from histill.features.store import read_recipe
from histill.slides import inspect, segment, tile


@pytest.fixture
def slide(tmp_path) -> Slide:
    """A slide of one stained disc."""
    picture = np.full((768, 768, 3), 243, np.uint8)
    cv2.circle(picture, (384, 384), 320, (222, 160, 196), -1)
    for x, y in np.random.default_rng(0).integers(150, 620, (700, 2)).tolist():
        cv2.circle(picture, (x, y), 5, (96, 62, 140), -1)
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        for level in (1, 2):
            file.write(
                picture[::level, ::level],
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                subfiletype=level - 1,
                resolution=(2e4, 2e4),
                resolutionunit=3,
            )
    return Slide("s", "p", str(tmp_path / "s.tif"))


def test_stores_and_receipts_say_which_weights_made_them(slide, tiny, tiny_weights, tmp_path):
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(tiny_weights)
    features = {"encoder": "tiny", "weights": str(weights), "device": "cpu"}
    config = complete({"results": str(tmp_path / "r"), "cohort": {}, "tiles": {"size": 96}, "features": features})
    for stage in (inspect, segment, tile):
        assert stage.run([slide], config=config, results=tmp_path / "r")[0].state == "ok"

    def run():
        return extract.run([slide], config=config, results=tmp_path / "r")[0]

    first = run()
    assert first.state == "ok", first.reason
    recipe = read_recipe(tmp_path / "r" / next(iter(first.outputs)), "20x")
    digest = hashlib.sha256(tiny_weights).hexdigest()
    assert recipe["weights"] == {"revision": None, "sha256": {"own.safetensors": digest}}
    assert json.loads((tmp_path / "r/receipts/encoders/tiny.json").read_text())["files"][0]["sha256"] == digest

    os.utime(weights, (1, 1))
    assert run() == first, "the same weights extracted again"
    weights.write_bytes(tiny_weights[:-4] + b"\x00\x00\x80\x3f")
    other = run()
    assert other.inputs["encoder:tiny"] != first.inputs["encoder:tiny"]
    assert other.outputs != first.outputs


def planned(shell, features: dict, tmp_path: Path, root: Path) -> list[str]:
    """Rules of a dry run, in order."""
    config = {"results": str(tmp_path / "r"), "demo": {"patients": 12}, "features": features}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["-m", "snakemake", "-s", str(root / "Snakefile"), "--configfile", "config.yaml", "-n", "--cores", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = shell.python(*command, "features", PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith(("rule ", "localrule "))
    ]


@pytest.mark.workflow
def test_weights_are_fetched_by_one_job_before_extraction(shell, tiny, tmp_path, root):
    rules = planned(shell, {"encoder": "tiny"}, tmp_path, root)
    assert rules.count("encoder") == 1
    assert rules.count("features_batch") > 1
    assert rules.index("encoder") < rules.index("features_batch")
    assert "encoder" not in planned(shell, {"encoder": "colour-texture"}, tmp_path, root)


@pytest.mark.workflow
def test_the_job_fetches_and_a_changed_local_file_runs_it_again(shell, hub, tiny, tiny_weights, tmp_path, root):
    hub.files["lab/tiny"] = {"model.safetensors": tiny_weights}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    config = {"results": "my results", "demo": {"patients": 12}, "features": {"encoder": "tiny"}}
    command = ["-m", "snakemake", "-s", str(root / "Snakefile"), "--configfile", "config.yaml", "--cores", "1"]

    def snakemake(*arguments: str):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        done = shell.python(*command, *arguments, PATH=path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    target = "my results/receipts/encoders/tiny.json"
    snakemake(target)
    written = json.loads((tmp_path / target).read_text())
    assert (written["repository"], written["revision"]) == ("lab/tiny", hub.commit)
    assert "Nothing to be done" in snakemake("-n", target)
    (tmp_path / "own weights.safetensors").write_bytes(tiny_weights)
    config["features"]["weights"] = "own weights.safetensors"
    snakemake(target)
    assert json.loads((tmp_path / target).read_text())["weights"] == "own weights.safetensors"
    assert "Nothing to be done" in snakemake("-n", target)
    (tmp_path / "own weights.safetensors").write_bytes(tiny_weights[:-4] + b"\x00\x00\x80\x3f")
    assert "Nothing to be done" not in snakemake("-n", target)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"encoder": "ctranspath", "allow_off_recipe": True}, "'ctranspath' lies in no public repository"),
        ({"encoder": "dinov2-s", "weights": "/none.pt"}, "/none.pt does not exist"),
        ({"encoder": "colour-texture", "weights": "/none.pt"}, "'colour-texture' has no weights; leave it null"),
        ({"encoder": "uni"}, "10x is 1"),
        ({"encoder": "uni-3"}, "no encoder 'uni-3'"),
    ],
)
def test_problems_are_found_before_anything_runs(tmp_path, features, message):
    with pytest.raises(ConfigError, match=message):
        plan.load({"results": str(tmp_path), "demo": {}, "features": features})


def test_a_missing_package_is_found_before_anything_runs(tmp_path, monkeypatch):
    from histill.encoders import recipes

    monkeypatch.setattr(recipes, "find_spec", lambda _: None)
    features = {"encoder": "midnight-12k"}
    with pytest.raises(ConfigError, match=r"needs the package transformers.*histill\[transformers\]"):
        plan.load({"results": str(tmp_path), "demo": {}, "features": features})
