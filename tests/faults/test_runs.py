"""Whole runs that are disturbed (minutes each: HISTILL_FAULTS=1), and compared with one that was not.

HISTILL_FAULTS_FOLDER names a folder that keeps the undisturbed run for the next time.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from histill.provenance import read_json
from tests.faults import kills
from tests.faults.runs import Place, differences, leftovers, outcome, processes

pytestmark = [pytest.mark.workflow, pytest.mark.usefixtures("asked_for")]
MORE = ("--rerun-incomplete", "--keep-going")
UP_TO_FEATURES = ("features",)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Place:
    """An undisturbed run. Do not change it: `copy` it."""
    kept = os.environ.get("HISTILL_FAULTS_FOLDER")
    return kills.undisturbed(Path(kept) if kept else tmp_path_factory.mktemp("faults") / "runs")


@pytest.fixture
def place(quiet, request) -> Iterator[Place]:
    """An empty folder beside the undisturbed run."""
    name = request.node.name.partition("[")[0]
    shutil.rmtree(quiet.work.with_name(name), ignore_errors=True)
    made = quiet.sibling(name)
    yield made
    shutil.rmtree(made.work)


@pytest.fixture
def finished(place, quiet) -> Place:
    """A copy of the undisturbed run, times kept."""
    shutil.copytree(quiet.work, place.work, symlinks=True, dirs_exist_ok=True)
    return place


def unequal(quiet: Place, place: Place) -> list[str]:
    """What differs from the undisturbed run; what lies behind the features may be missing."""
    lines = differences(outcome(quiet.results), outcome(place.results))
    first = ("slides/", "features/", "demo/", "receipts/features")
    return [
        line for line in lines if not line.startswith("missing: ") or line.removeprefix("missing: ").startswith(first)
    ]


def set_aside_here(place: Place) -> set[str]:
    """Slides that any stage has set aside."""
    receipts = map(read_json, place.results.glob("slides/*/receipts/*.json"))
    return {receipt["slide"] for receipt in receipts if receipt["state"] == "quarantined"}


def mount(*arguments: str) -> None:
    if subprocess.run(["mount", *arguments], capture_output=True).returncode != 0:
        pytest.skip("may not mount")


def test_killed_now_and_then(quiet):
    for name in ("disturbed", "kills.jsonl"):
        subprocess.run(["rm", "-rf", quiet.work.with_name(name)], check=True)
    tally = kills.torment(quiet.work.parent, kills=6, seed=int(time.time()))
    assert tally.kills() >= 6
    assert tally.unequal == []


def test_a_full_disk(place, quiet):
    """Too little room, and a quarter more each time, until it is enough."""
    place.results.mkdir()
    made = [quiet.results / name for name in ("demo", "slides", "features", "receipts")]
    size = sum(path.stat().st_size for folder in made for path in folder.rglob("*")) >> 10
    mount("-t", "tmpfs", "-o", f"size={size // 4}k", "tmpfs", str(place.results))
    try:
        stops = 0
        while (done := place.run(*MORE, targets=UP_TO_FEATURES, check=False)).returncode != 0:
            stops += 1
            assert "No space left on device" in done.stdout
            assert set_aside_here(place) <= {"SYN-006-2"}, "a full disk is no slide's fault"
            mount("-o", f"remount,size={(stops + 1) * size // 4}k", str(place.results))
        assert stops > 1
        assert unequal(quiet, place) == []
        assert leftovers(place.results) == []
    finally:
        subprocess.run(["umount", str(place.results)], check=True)


def test_read_only_results(finished, quiet):
    before = outcome(finished.results)
    mount("--bind", str(finished.results), str(finished.results))
    try:
        mount("-o", "remount,ro,bind", str(finished.results))
        done = finished.run("-R", "evaluate", check=False)
        assert done.returncode != 0
        assert "Write-protected output files" in done.stdout
        stage = finished.histill("report", "--config", "results/config.json", stderr=subprocess.PIPE)
        said = stage.communicate()[1]
        assert stage.returncode == 1
        assert said.startswith("histill: ")
        assert "cannot be written: Read-only file system\n  mend: have its file system mounted for writing" in said
    finally:
        subprocess.run(["umount", str(finished.results)], check=True)
    assert outcome(finished.results) == before


def test_a_store_that_vanished(finished, quiet):
    """Nothing is planned for it; training says what to do."""
    store = next((finished.results / "features").glob("*/*.zarr"))
    shutil.rmtree(store)
    shutil.rmtree(finished.results / "models")
    done = finished.run("-R", "train_runs", targets=("train",), check=False)
    assert done.returncode != 0
    assert store.name in done.stdout
    assert "snakemake -R features_batch" in done.stdout
    finished.run("-R", "features_batch")
    assert unequal(quiet, finished) == []


def test_a_second_run_is_refused_while_the_first_one_is_at_work(place):
    first = place.start(log=place.work / "first.log")
    while not any(process.kind == "stage" for process in processes(first.pid)):
        assert first.poll() is None
        time.sleep(0.1)
    second = place.run(*MORE, check=False)
    first.kill()
    first.wait()
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout
    assert "--unlock" in second.stdout
    while processes(first.pid):
        time.sleep(0.1)


def test_two_runs_at_once_without_a_lock(place, quiet):
    """Against the rules; each may stop where it meets the other, and neither spoils anything."""
    logs = [place.work / f"{name}.log" for name in ("first", "second")]
    both = [place.start("--nolock", *MORE, log=log, targets=UP_TO_FEATURES) for log in logs]
    ends = [one.wait() for one in both]
    print([(end, kills.reason(log)) for end, log in zip(ends, logs, strict=True)])
    place.run(*MORE, targets=UP_TO_FEATURES)
    assert unequal(quiet, place) == []


def test_a_slide_of_tomorrow(finished, quiet):
    """A scanner's clock was wrong: the slide is used, and not done again and again."""
    slide = sorted((finished.results / "demo" / "slides").glob("*.svs"))[0]
    os.utime(slide, (time.time() + 86400,) * 2)
    finished.run("-R", "inspect_batch", targets=("features",))
    assert "Nothing to be done" in finished.run("-n", targets=("features",)).stdout
    assert unequal(quiet, finished) == []


def test_results_of_tomorrow(finished, quiet):
    """The machine's clock was ahead for a while: snakemake says so, and the mend of docs/reliability.md works."""
    tomorrow = time.time() + 86400
    for path in finished.results.rglob("*"):
        if "demo" not in path.parts:
            os.utime(path, (tomorrow, tomorrow))
    assert "Nothing to be done" in finished.run("-n").stdout
    done = finished.run("-R", "evaluate", check=False)
    assert done.returncode != 0
    assert "clock skew" in done.stdout
    mend = "find results -newermt now -exec touch -r results/config.json {} +"
    subprocess.run(mend, shell=True, check=True, cwd=finished.work)
    finished.run(*MORE)
    assert "Nothing to be done" in finished.run("-n").stdout
    assert differences(outcome(quiet.results), outcome(finished.results)) == []


def test_a_run_that_is_asked_to_end(place, quiet):
    """SIGTERM to all processes, as `scancel` sends it: none stays, and the next run goes on."""
    first = place.start(log=place.work / "first.log", targets=UP_TO_FEATURES)
    while not any(process.stage == "features" and process.kind == "child" for process in processes(first.pid)):
        assert first.poll() is None
        time.sleep(0.1)
    for process in processes(first.pid):
        os.kill(process.pid, signal.SIGTERM)
    first.wait(60)
    deadline = time.monotonic() + 30
    while processes(first.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(first.pid) == []
    unlocked = place.run("--unlock", targets=())
    assert unlocked.returncode == 0
    place.run(*MORE, targets=UP_TO_FEATURES)
    assert unequal(quiet, place) == []
    assert leftovers(place.results) == []
