"""How jobs share a workstation, and what they ask a cluster for. The jobs are stand-ins, the GPUs pretended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from histill import demands, plan

pytestmark = pytest.mark.workflow

# Writes down when a job begins and ends, and when it holds a GPU, leased as extraction does where torch sees two.
STAND_IN = """
import sys, time
from contextlib import contextmanager
from pathlib import Path

@contextmanager
def noted(what):
    for change in (1, -1):
        with open("events", "a") as events:
            print(time.time(), change, what, file=events)
        if change == 1:
            yield

with noted(sys.argv[1]):
    if sys.argv[1] == "features":
        import torch
        torch.cuda.is_available, torch.cuda.device_count = (lambda: True), (lambda: 2)
        from histill.device import lease
        with lease("auto") as place, noted(place):
            time.sleep(1)
    else:
        time.sleep(1)
Path(sys.argv[sys.argv.index("--out") + 1]).write_text("{}")
"""


class Workstation:
    """A folder with a cohort of four batches, and a machine of two GPUs."""

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder
        features = {"encoder": "random-test-vit", "allow_off_recipe": True}
        config = {"demo": {}, "results": "results", "batch_size": 16, "features": features}
        self.configure(config)
        self.plan = plan.load(config)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "stand_in.py").write_text(STAND_IN)
        for name, line in {
            "histill": f'exec "{sys.executable}" "{programs}/stand_in.py" "$@"',
            "nvidia-smi": "echo 'GPU 0: of a test'; echo 'GPU 1: of a test'",
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        self.environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        self.environment |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(folder)}

    def configure(self, config: dict) -> None:
        self.config = config
        (self.folder / "config.json").write_text(json.dumps(config))

    def snakemake(self, *options: str) -> str:
        command = [sys.executable, "-m", "snakemake", "-s", str(self.root / "Snakefile"), "--configfile", "config.json"]
        done = subprocess.run(
            [*command, *options], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def paint(self) -> None:
        """Slides that are there, and empty."""
        for slide in self.plan.sheets.slides.values():
            path = self.folder / slide.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def at_once(self) -> list[Counter]:
        """Stages that ran, and GPUs that were in use, at the same time, at every moment that one began or ended."""
        running: Counter = Counter()
        moments = []
        for line in sorted((self.folder / "events").read_text().splitlines()):
            _, change, what = line.split()
            running[what] += int(change)
            moments.append(running.copy())
        return moments


def provided(text: str) -> dict[str, int]:
    """Resources that Snakemake says it has to give."""
    line = re.search(r"^Provided resources: (.*)$", text, re.MULTILINE)[1]
    return {name: int(number) for name, number in re.findall(r"(\w+)=\D*(\d+)", line)}


@pytest.fixture
def workstation(root, tmp_path) -> Workstation:
    return Workstation(root, tmp_path)


def test_jobs_share_gpus_and_memory_and_have_a_gpu_each(workstation):
    workstation.paint()
    batches = list(workstation.plan.batches)
    tiles = workstation.folder / "results" / "receipts" / "tiles"
    tiles.mkdir(parents=True)
    for batch in batches:
        (tiles / f"{batch}.json").write_text("{}")
    targets = [f"results/receipts/{stage}/{batch}.json" for stage in ("features", "inspect") for batch in batches]
    gpu_job, cpu_job = (demands.memory_mb(workstation.plan, stage, batches[0]) for stage in ("features", "inspect"))
    memory = 2 * gpu_job + cpu_job + cpu_job // 2
    rules = ["--allowed-rules", "features_batch", "inspect_batch"]
    said = workstation.snakemake("--cores", "64", "--resources", f"mem_mb={memory}", *rules, "--", *targets)
    assert provided(said) == {"mem_mb": memory, "gpu": 2}

    moments = workstation.at_once()
    assert len(moments) == 2 * 4 + 4 * 4
    assert max(moment["features"] for moment in moments) == 2
    assert {moment[device] for moment in moments for device in ("cuda:0", "cuda:1")} == {0, 1}
    assert any(moment["features"] and moment["inspect"] for moment in moments)
    assert max(moment["features"] * gpu_job + moment["inspect"] * cpu_job for moment in moments) <= memory


def test_memory_of_the_machine_is_counted_where_none_is_given(workstation):
    workstation.paint()
    target = f"results/receipts/inspect/{next(iter(workstation.plan.batches))}.json"
    said = workstation.snakemake("--cores", "1", "--allowed-rules", "inspect_batch", "--", target)
    assert provided(said) == {"mem_mb": demands.memory_of_machine(), "gpu": 2}


def asked(text: str) -> dict[str, str]:
    """Resources that the jobs of a dry run ask for, by rule; of several jobs of one rule those of the last."""
    return dict(re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", text, re.MULTILINE))


def test_a_cluster_is_asked_for_the_partitions_and_account_of_the_config(workstation):
    names = {"partition": "short", "gpu_partition": "a100", "account": "lab-7"}
    workstation.configure(
        workstation.config | {"cluster": names, "tasks": {"d": {"type": "classification", "label": "diagnosis"}}}
    )
    # As on a cluster: `--jobs` beside `--cores`; the executor plays no part in a dry run.
    jobs = asked(workstation.snakemake("-n", "--cores", "1", "--jobs", "4"))
    where = {
        rule: re.search(r"slurm_partition=([^,]+)", resources)[1]
        for rule, resources in jobs.items()
        if "mem_mb" in resources
    }
    assert {rule for rule, partition in where.items() if partition == "a100"} >= {"features_batch", "predict"}
    assert {where[rule] for rule in ("demo", "inspect_batch", "cohort", "evaluate", "report")} == {"short"}
    assert all("slurm_account=lab-7" in jobs[rule] for rule in where)


def test_what_the_config_does_not_name_is_left_to_the_profile(workstation):
    text = workstation.snakemake("-n", "--cores", "1", "--jobs", "4", "--default-resources", "slurm_partition=mine")
    jobs = asked(text)
    assert all("slurm_partition=mine" in resources and "slurm_account" not in resources for resources in jobs.values())
