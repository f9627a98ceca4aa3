from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from histill import __version__
from histill.cli import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def process(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "histill", *arguments], capture_output=True, text=True, cwd=cwd)


def test_version(run):
    assert run("--version").stdout.strip() == __version__


def test_an_error_is_its_message_and_mend_without_a_traceback(tmp_path):
    done = process("validate", "--config", "none.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "none.yaml" in done.stderr
    assert "mend:" in done.stderr
    assert "Traceback" not in done.stderr


def test_encoders(run):
    assert "colour-texture" in run("encoders", "list").stdout
    assert json.loads(run("encoders", "show", "virchow2").stdout)["dim"] == 2560


def test_import_of_a_table_needs_no_config(run, tmp_path):
    (tmp_path / "table.csv").write_text("slide_id,patient_id,a,b\ns1,p1,1,2\ns2,p2,3,\n")
    done = run("features", "import", "--table", "table.csv", "--name", "elsewhere", "--results", "out")
    assert done.exit_code == 0, done.output
    slides = json.loads((tmp_path / "out" / "receipts" / "features.json").read_text())["slides"]
    assert [(slide["slide"], slide["state"]) for slide in slides] == [("s1", "ok"), ("s2", "ok")]
    assert (tmp_path / "out" / "features" / "elsewhere" / "s1.zarr" / "slide").is_dir()


def test_doctor_exits_with_a_problem(run, tmp_path):
    (tmp_path / "bad.svs").write_bytes(b"")
    done = run("doctor", "bad.svs")
    assert done.exit_code == 1
    assert "mend" in done.stdout


def test_demo_goes_where_it_is_told(run, tmp_path):
    (tmp_path / "config.yaml").write_text("results: r\ndemo: {patients: 12, size_px: 1024}\n")
    assert run("demo", "make", "--out", "elsewhere").exit_code == 0
    assert (tmp_path / "elsewhere" / "clinical.csv").exists()
    assert not (tmp_path / "r").exists()
