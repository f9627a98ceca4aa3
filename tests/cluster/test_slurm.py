"""A run on a real SLURM: sh tests/cluster/start.sh; pytest tests/cluster -n 0; sh tests/cluster/stop.sh

The demo cohort goes through the shipped profile. The whole run is cancelled in the middle and resumed; in what follows
the scheduler ends one job by hand and one for its memory. At the end the results are those of a local run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from histill.config import complete
from histill.demo.make import make
from tests.workflow.conftest import Project

CLUSTER = "histill-test"  # of start.sh: no other cluster is sent anything
CONFIG = {
    "results": "results",
    "batch_size": 16,
    "cluster": {"partition": "cpu", "gpu_partition": "gpu"},
    "cohort": {"slides": "demo/slides.csv", "clinical": "demo/clinical.csv", "expression": "demo/expression.tsv.gz"},
    "features": {"encoder": "random-test-vit", "allow_off_recipe": True, "threads": 1},
    "tasks": {"diagnosis": {"type": "classification", "label": "diagnosis"}},
    "folds": {"n": 2},
    "training": {"model": {"epochs": 2}},
    "methods": {"run": ["disentangled", "linear-both"]},
    "evaluation": {"bootstrap": 100},
}
# Stands before the program: writes down each job's stage as the job sees it, and has a stage wait while there is a file
# hold-<stage>.
STAND_IN = """#!/bin/sh
echo "${{SLURM_JOB_ID:-local}} ${{CUDA_VISIBLE_DEVICES:-none}} $*" >> {folder}/stages
while [ -e "{folder}/hold-$1" ]; do sleep 1; done
exec {python} -m histill "$@"
"""
SECONDS = 1800
RESULTS = (
    "slides/*/tiles.parquet",
    "features/*/*.zarr/**/*",
    "cohort/*.parquet",
    "cohort/folds.json",
    "models/**/predictions.parquet",
    "evaluation/*",
)


def _missing() -> str | None:
    """What there would have to be to test with, or None."""
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        return "the plugin is not installed (the extra `slurm`)"
    if not shutil.which("scontrol"):
        return "SLURM is not installed"
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
    if not re.search(rf"^ClusterName\s*= {CLUSTER}$", done.stdout, re.MULTILINE):
        return "the SLURM of tests/cluster/start.sh is not up"
    return None


MISSING = _missing()
pytestmark = [pytest.mark.workflow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


@dataclass
class Job:
    """A job as the controller remembers it. `signal` is what ended it, or 0."""

    number: str
    rule: str
    state: str
    signal: int
    partition: str
    memory_mb: int
    minutes: int
    gpus: int


@dataclass
class Story:
    """What happened: the run that was cancelled, its resumption, and a run of the same on this machine alone.

    Attributes
    ----------
    cancelled, resumed
        Jobs of the two runs.
    stages
        Job, devices and stage of everything that was begun in both.
    kept
        Receipts of the cancelled run, and when they were written.
    rewritten
        Those that the resumption wrote again.
    on_slurm, local
        Digests of the results.
    """

    cancelled: list[Job]
    resumed: list[Job]
    stages: list[list[str]]
    kept: dict[Path, int]
    rewritten: list[Path]
    on_slurm: dict[str, str]
    local: dict[str, str]


class Cluster(Project):
    """A project whose stages say where they run."""

    def prepare(self) -> None:
        programs = self.work / "bin"
        programs.mkdir()
        (programs / "histill").write_text(STAND_IN.format(folder=self.work, python=sys.executable))
        (programs / "histill").chmod(0o755)
        # Jobs have the environment that snakemake was started with.
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PYTHONPATH": str(self.source / "src"), "PATH": path}

    def start(self, *options: str) -> subprocess.Popen:
        """Snakemake in the background; what it says goes to `said`."""
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "-s",
            str(self.source / "Snakefile"),
            "--configfile",
            "config.yaml",
        ]
        with (self.work / "said").open("w") as said:
            return subprocess.Popen(
                [*command, *options], cwd=self.work, env=self.environment, stdout=said, stderr=subprocess.STDOUT
            )

    def on_slurm(self, *options: str) -> subprocess.Popen:
        profile = ["--workflow-profile", str(self.source / "workflow" / "profiles" / "slurm")]
        site = [
            "--slurm-status-command",
            "squeue",
            "--slurm-init-seconds-before-status-checks",
            "5",
            "--max-threads",
            "1",
        ]
        return self.start(*profile, *site, *options)

    def said(self) -> str:
        return (self.work / "said").read_text()

    def stages(self) -> list[list[str]]:
        """Job, its devices, and the stage, of every stage that was begun."""
        log = self.work / "stages"
        return [line.split()[:3] for line in log.read_text().splitlines()] if log.exists() else []

    def jobs(self) -> list[Job]:
        """Jobs of the run that was started last."""
        name = re.search(r"SLURM run ID: (\S+)", self.said())[1]
        shown = subprocess.run(["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True)
        return [_job(line) for line in shown.stdout.splitlines() if f"JobName={name} " in line]


def _job(line: str) -> Job:
    given = dict(word.split("=", 1) for word in line.split() if "=" in word)
    hours, minutes = re.fullmatch(r"(\d+):(\d+):00", given["TimeLimit"]).groups()
    return Job(
        number=given["JobId"],
        rule=re.match(r"rule_(.*?)(_wildcards|$)", given["Comment"])[1],
        state=given["JobState"],
        signal=int(given["ExitCode"].partition(":")[2]),
        partition=given["Partition"],
        memory_mb=_megabytes(re.search(r"mem=([\d.]+[MG])", given["TRES"])[1]),
        minutes=60 * int(hours) + int(minutes),
        gpus=int((re.search(r"gres:gpu:(\d+)", given.get("TresPerJob", "")) or [0, 0])[1]),
    )


def _megabytes(text: str) -> int:
    return round(float(text[:-1]) * (1024 if text.endswith("G") else 1))


def wait_for(what: Callable[[], object], process: subprocess.Popen, project: Cluster) -> None:
    end = time.monotonic() + SECONDS
    while not what():
        assert process.poll() is None, project.said()[-5000:]
        assert time.monotonic() < end, project.said()[-5000:]
        time.sleep(1)


def digests(results: Path) -> dict[str, str]:
    files = {file for pattern in RESULTS for file in results.glob(pattern) if file.is_file()}
    return {str(file.relative_to(results)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def receipts(results: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (results / "receipts").rglob("*.json")}


def end(process: subprocess.Popen, project: Cluster) -> None:
    """Wait for a run that must end well."""
    wait_for(lambda: process.poll() is not None, process, project)
    assert process.returncode == 0, project.said()[-5000:]


@pytest.fixture(scope="module")
def project(root, tmp_path_factory) -> Cluster:
    """Sheets and slides of 20 small synthetic patients."""
    folder = tmp_path_factory.mktemp("cluster")
    for name in ("src", "workflow", "resources"):
        shutil.copytree(root / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "Snakefile", folder)
    work = folder / "work"
    work.mkdir()
    options = complete({"results": "r", "demo": {"patients": 20, "size_px": 1024}})["demo"]
    make(options, work / "demo", workers=2)
    sheet = work / "demo" / "slides.csv"
    sheet.write_text(re.sub(r"[^,\n]*/slides/", "demo/slides/", sheet.read_text()))
    (work / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    project = Cluster(folder, work)
    project.prepare()
    return project


@pytest.fixture(scope="module")
def story(project, tmp_path_factory) -> Story:
    work, results = project.work, project.work / "results"

    # The whole run is cancelled while the first model is trained: the jobs, and Snakemake as scancel ends a job.
    (work / "hold-train").touch()
    process = project.on_slurm()
    wait_for(lambda: any(stage == "train" for _, _, stage in project.stages()), process, project)
    running = [job.number for job in project.jobs() if job.state in ("RUNNING", "PENDING")]
    kept = receipts(results)
    process.send_signal(signal.SIGTERM)
    subprocess.run(["scancel", *running], check=True)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    cancelled = project.jobs()
    (work / "hold-train").unlink()
    assert project.start("--unlock").wait() == 0

    # Resumed, one job is cancelled, and one has too little memory at first.
    (work / "hold-predict-stage").touch()
    process = project.on_slurm("--set-resources", "evaluate:mem_mb=100 * attempt ** 3")
    wait_for(lambda: any(stage == "predict-stage" for _, _, stage in project.stages()), process, project)
    begun = next(number for number, _, stage in project.stages() if stage == "predict-stage")
    subprocess.run(["scancel", begun], check=True)
    (work / "hold-predict-stage").unlink()
    end(process, project)
    resumed, stages = project.jobs(), project.stages()
    rewritten = [path for path, at in kept.items() if path.stat().st_mtime_ns != at]
    on_slurm = digests(results)

    results.rename(work / "results-slurm")
    shutil.rmtree(work / ".snakemake")
    end(project.start("--cores", "2"), project)
    return Story(cancelled, resumed, stages, kept, rewritten, on_slurm, digests(results))


def of_rule(jobs: list[Job], rule: str) -> list[Job]:
    return sorted((job for job in jobs if job.rule == rule), key=lambda job: int(job.number))


def test_slides_are_worked_on_in_batches(story, project):
    slides = len((project.work / "demo" / "slides.csv").read_text().splitlines()) - 1
    for rule in ("inspect_batch", "tissue_batch", "tiles_batch", "features_batch"):
        assert 1 < len(of_rule(story.cancelled, rule)) < slides / 4


def test_jobs_that_use_a_gpu_are_given_one_and_see_it_alone(story):
    jobs = [*story.cancelled, *story.resumed]
    assert {job.rule for job in jobs if job.gpus} == {"features_batch", "train_runs", "predict"}
    assert "train_runs" in {job.rule for job in jobs if not job.gpus}  # a linear model has no use for one
    assert all((job.gpus, job.partition) in ((1, "gpu"), (0, "cpu")) for job in jobs)
    seen = {number: devices for number, devices, _ in story.stages if number != "local"}
    on_gpu = {job.number for job in jobs if job.gpus}
    assert {devices for number, devices in seen.items() if number in on_gpu} == {"0", "1"}
    assert {devices for number, devices in seen.items() if number not in on_gpu} == {"none"}


def test_what_was_done_before_the_run_was_cancelled_is_not_done_again(story):
    assert {path.parent.name for path in story.kept} >= {"inspect", "tissue", "tiles", "features"}
    assert not story.rewritten
    before = {job.rule for job in story.cancelled if job.state == "COMPLETED"}
    assert before & {job.rule for job in story.resumed} <= {"train_runs"}
    assert Counter(job.state for job in story.cancelled)["CANCELLED"] >= 1


def test_a_cancelled_job_is_done_again_with_more(story):
    first, second = of_rule(story.resumed, "predict")
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    assert (second.memory_mb, second.minutes) == (2 * first.memory_mb, 2 * first.minutes)


def test_a_job_killed_for_its_memory_is_done_again_with_more(story):
    *killed, last = of_rule(story.resumed, "evaluate")
    assert [job.memory_mb for job in killed] == [100 * attempt**3 for attempt in range(1, len(killed) + 1)]
    assert {job.signal for job in killed} == {signal.SIGKILL}
    assert last.state == "COMPLETED"


def test_results_are_those_of_an_undisturbed_run(story):
    assert len(story.local) > 50
    assert story.on_slurm == story.local
