"""Commands that are ended by a signal: they tidy up, and no child outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from histill.bundle.slide_run import _work_folder
from histill.config import complete
from histill.provenance import OK
from histill.slides import inspect, tile
from tests.faults.conftest import extracted, followed
from tests.faults.runs import differences, leftovers, outcome, processes

# A reader that says when it has begun, and is in no hurry from then on.
SLOW = """
import os, sys, time
import histill.cli
read = os.pread
def pread(*arguments):
    with open(os.environ["BEGUN"], "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(float(os.environ["PAUSE"]))
    return read(*arguments)
os.pread = pread
histill.cli.main()
"""


def started(tmp_path: Path, *arguments: str, pause: float = 60.0) -> tuple[subprocess.Popen, int]:
    """A command that has begun to read a slide, and the process that reads."""
    begun = tmp_path / "begun"
    begun.unlink(missing_ok=True)
    environment = {**os.environ, "BEGUN": str(begun), "PAUSE": str(pause), "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{SLOW}"
    command = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (begun.exists() and begun.read_text().endswith("\n")) and time.monotonic() < deadline:
        assert command.poll() is None, command.stderr.read()
        time.sleep(0.02)
    return command, int(begun.read_text().split()[0])


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_painters_of_the_synthetic_cohort_end_with_their_command(tmp_path, number):
    (tmp_path / "config.yaml").write_text("results: results\ndemo: {patients: 12, size_px: 2048}\n")
    words = [sys.executable, "-m", "histill", "demo", "make", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = subprocess.Popen(words, cwd=tmp_path, env=environment, start_new_session=True, stderr=subprocess.PIPE)
    painted = tmp_path / "results" / "demo" / "slides"
    deadline = time.monotonic() + 60
    while not (painted.exists() and any(painted.iterdir())) and time.monotonic() < deadline:
        assert command.poll() is None, command.stderr.read()
        time.sleep(0.02)
    others = {process.pid for process in processes(command.pid)} - {command.pid}
    assert len(others) >= 2
    command.send_signal(number)
    command.communicate(timeout=30)
    assert [pid for pid in others if not gone(pid)] == []


@pytest.fixture
def sheet(slides, tmp_path) -> Path:
    """The config of a run on the two slides."""
    rows = [f"{slide.slide_id},{slide.patient_id},{slide.path}" for slide in slides]
    (tmp_path / "slides.csv").write_text("\n".join(["slide_id,patient_id,path", *rows]) + "\n")
    options = {"results": "results", "cohort": {"slides": "slides.csv"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options))
    return tmp_path / "config.yaml"


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "histill: ended by SIGTERM"), (signal.SIGINT, 130, ""), (signal.SIGKILL, -9, "")],
)
def test_a_stage_that_is_ended_leaves_nothing_half_written(sheet, slides, undisturbed, tmp_path, number, code, said):
    results = tmp_path / "results"
    done = inspect.run(slides, config=complete({"results": str(results), "cohort": {}}), results=results)
    assert all(receipt.state == OK for receipt in done)
    command, reader = started(tmp_path, "tissue", "--config", str(sheet))
    command.send_signal(number)
    stderr = command.communicate(timeout=20)[1]
    assert command.returncode == code
    assert said in stderr
    assert "Traceback" not in stderr
    assert gone(reader)
    assert leftovers(results) == []
    assert {path.name for path in results.rglob("receipts/*.json")} == {"inspect.json"}
    extracted(slides, results)
    assert differences(outcome(undisturbed), outcome(results)) == []


@pytest.mark.parametrize(("stage", "before"), [("inspect", None), ("features", tile)])
def test_a_child_that_is_killed_costs_its_slide_alone(slides, undisturbed, tmp_path, monkeypatch, stage, before):
    read, name = os.pread, Path(slides[0].path).name

    def pread(file: int, count: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{file}").endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(file, count, offset)

    with monkeypatch.context() as patch:
        fail = partial(patch.setattr, os, "pread", pread)
        fail() if before is None else patch.setattr(before, "run", followed(before.run, fail))
        bad, good = extracted(slides, tmp_path)
    assert (bad.state, good.state) == ("quarantined", "ok")
    assert "the process was killed (SIGKILL), as happens when memory runs out" in bad.reason
    assert bad.mend.endswith(f"then snakemake -R {stage}_batch")
    assert [receipt.state for receipt in extracted(slides, tmp_path)] == ["ok", "ok"]
    assert differences(outcome(undisturbed), outcome(tmp_path)) == []
    assert leftovers(tmp_path) == []


PREDICT = """
import sys, time
from pathlib import Path
import histill.cli
from histill.bundle.slide_run import _work_folder
def predict():
    with _work_folder(Path(sys.argv[1]), keep=False) as work:
        (work / "store").write_text("half")
        print("begun", flush=True)
        time.sleep(60)
histill.cli.app = predict
histill.cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_prediction_that_is_ended_leaves_no_work_behind(tmp_path, number):
    """Killed by force it leaves its folder to the next one, which removes it; that of a living one stays."""
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{PREDICT}"
    command = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert command.stdout.readline() == "begun\n"
    (theirs,) = tmp_path.iterdir()
    with _work_folder(tmp_path, keep=False) as mine:
        assert {path.name for path in tmp_path.iterdir()} == {theirs.name, mine.name}
    command.send_signal(number)
    command.communicate(timeout=20)
    assert command.returncode != 0
    assert list(tmp_path.iterdir()) == ([theirs] if number == signal.SIGKILL else [])
    with _work_folder(tmp_path, keep=False) as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert list(tmp_path.iterdir()) == []
