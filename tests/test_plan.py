from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import accumulate

import pytest

from histill import plan
from histill.errors import ConfigError
from histill.stages import MODELS


def options(tmp_path, **features):
    (tmp_path / "table.csv").write_text("slide_id,patient_id,a\ns,p,1\n")
    return {
        "results": str(tmp_path / "r"),
        "cohort": {},
        "features": {"source": "table", "table": str(tmp_path / "table.csv"), **features},
    }


def test_imports_need_a_name_of_their_own(tmp_path):
    assert plan.load(options(tmp_path, encoder="elsewhere")).imports
    for features in ({}, {"encoder": "uni"}):
        with pytest.raises(ConfigError, match="a name of their own"):
            plan.load(options(tmp_path, **features))


def test_methods_that_need_rna_are_named(tmp_path):
    (tmp_path / "clinical.csv").write_text("patient_id,dx\n" + "".join(f"p{i},{'ab'[i % 2]}\n" for i in range(12)))
    config = options(tmp_path, encoder="elsewhere")
    config["cohort"] = {"clinical": str(tmp_path / "clinical.csv")}
    config["tasks"] = {"dx": {"type": "classification", "label": "dx"}}
    with pytest.raises(ConfigError) as caught:
        plan.load(config)
    named = [method for method in MODELS if f"'{method}' needs transcriptomes" in str(caught.value)]
    assert named == ["disentangled", "linear-rna", "linear-both"]
    assert plan.load({**config, "methods": {"run": ["wsi-only", "linear-slide"]}})


def test_demo_plan_knows_its_files(tmp_path):
    checked = plan.load({"results": str(tmp_path), "demo": {}})
    assert sum(len(slides) for slides in checked.batches.values()) == len(checked.sheets.slides) >= 48
    assert checked.encoder_gpus() == 0
    assert [checked.training_gpus(method) for method in ("disentangled", "abmil", "linear-both")] == [1, 1, 0]
    assert checked.prediction_gpus() == 1
    assert checked.tissue_gpus() == 0
    assert all(path.startswith(str(tmp_path)) for path in checked.sheet_files())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("device", "gpus"), [("auto", 1), ("cuda", 1), ("cpu", 0)])
def test_finding_tissue_by_a_model_asks_for_a_gpu(device, gpus, tmp_path):
    config = {"results": str(tmp_path), "demo": {}, "tissue": {"method": "deeplabv3", "device": device}}
    assert plan.load(config).tissue_gpus() == gpus


STAND_IN = """#!/bin/sh
echo "$(date +%s.%N) 1" >> jobs; sleep 1; echo "$(date +%s.%N) -1" >> jobs
while [ "$1" != --out ]; do shift; done
echo '{}' > "$2"
"""


@pytest.fixture
def most_at_once(root, tmp_path):
    """Runs extraction as Snakemake schedules it, on as many GPUs as are said to be there: how many jobs ran at once."""
    config = {"demo": {}, "batch_size": 16, "features": {"encoder": "random-test-vit", "allow_off_recipe": True}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    targets = []
    for batch in plan.load(config | {"results": str(tmp_path / "results")}).batches:
        done = tmp_path / "results" / "receipts" / "tiles" / f"{batch}.json"
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text("{}")
        targets.append(f"results/receipts/features/{batch}.json")
    assert len(targets) == 4
    programs = tmp_path / "bin"
    programs.mkdir()

    def run(gpus: int, *options: str) -> int:
        listing = "".join(f"echo 'GPU {index}: of a test'\n" for index in range(gpus))
        for name, text in (("histill", STAND_IN), ("nvidia-smi", f"#!/bin/sh\ntouch asked\n{listing}")):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "snakemake", "-s", str(root / "Snakefile"), "--configfile", "config.json"]
        command += ["--cores", "64", "--set-resources", "features_batch:mem_mb=1"]  # whatever memory the machine has
        command += ["--allowed-rules", "features_batch", *options, "--", *targets]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-5000:]
        events = sorted(line.split() for line in (tmp_path / "jobs").read_text().splitlines())
        assert len(events) == 2 * len(targets)
        return max(accumulate(int(change) for _, change in events))

    return run


@pytest.mark.workflow
@pytest.mark.parametrize(("gpus", "options", "wanted"), [(2, [], 2), (2, ["--resources", "gpu=1"], 1), (0, [], 4)])
def test_a_workstation_runs_as_many_jobs_on_gpus_as_it_has(gpus, options, wanted, most_at_once):
    assert most_at_once(gpus, *options) == wanted


@pytest.mark.workflow
def test_a_cluster_counts_its_own_gpus(most_at_once, tmp_path):
    """`--jobs` beside `--cores` is what a cluster is run with; the node that submits may have no GPU, or one."""
    assert most_at_once(1, "--jobs", "4") == 4
    assert not (tmp_path / "asked").exists()


@pytest.mark.workflow
@pytest.mark.parametrize("option", ["--unlock", "--summary"])
def test_what_needs_no_cores_works_beside_gpus(option, root, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: of a test'\necho 'GPU 1: of a test'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"demo": {}, "results": "results"}))
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "snakemake", "-s", str(root / "Snakefile"), "--configfile", "config.json", option]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_other_batches_of_patients_are_another_digest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patients = range(30)
    for patient in patients:
        (tmp_path / f"{patient}.svs").write_text("")
    sheets = {
        "slides": ["slide_id,patient_id,path", *(f"s{patient},p{patient},{patient}.svs" for patient in patients)],
        "clinical": ["patient_id,months,event,centre", *(f"p{i},{i + 1},{i % 2},{'ab'[i % 2]}" for i in patients)],
        "expression": ["gene," + ",".join(f"p{patient}" for patient in patients)],
    }
    for name, lines in sheets.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    config = {
        "results": str(tmp_path / "results"),
        "cohort": {name: str(tmp_path / f"{name}.csv") for name in sheets},
        "tasks": {"survival": {"type": "survival", "time": "months", "event": "event"}},
    }
    assert plan.load(config).batch_digest() is None
    config["transcriptome"] = {"transform": {"batch": {"column": "centre"}}}
    first = plan.load(config).batch_digest()
    clinical = tmp_path / "clinical.csv"
    lines = clinical.read_text().splitlines()
    clinical.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert plan.load(config).batch_digest() == first, "the order of the rows is no matter"
    clinical.write_text(clinical.read_text().replace(",b\n", ",c\n", 1))
    assert plan.load(config).batch_digest() != first
