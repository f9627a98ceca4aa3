"""`snakemake bundle`: what is planned, on a cohort of features."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    from histill.demo.planted import make
    from histill.features.store import write_store

    work = tmp_path_factory.mktemp("bundle rule")
    make(work / "cohort", write_store, patients=36, tiles=16, dim=16)
    given = yaml.safe_load((work / "cohort" / "config.yaml").read_text())
    given |= {
        "tasks": {"os-2": {"type": "survival", "time": "os_months", "event": "os_event"}},
        "methods": {"run": ["disentangled", "msrl", "wsi-only", "linear-slide"]},
    }
    (work / "config.yaml").write_text(yaml.safe_dump(given))
    return work


def test_students_of_every_task_are_exported(cohort, root):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "snakemake", "-s", str(root / "Snakefile"), "--configfile", "config.yaml"]
    done = subprocess.run(
        [*command, "--cores", "1", "-n", "-p", "bundle"],
        cwd=cohort,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = Counter(re.findall(r"^(?:local)?rule (\w+):", done.stdout, re.MULTILINE))
    assert (rules["export_bundle"], rules["evaluate"], rules["report"]) == (2, 1, 0)
    commands = re.findall(r"histill export .*--task (\S+) --method (\S+) --stage student --out (.+?) >", done.stdout)
    assert {(task, method) for task, method, _ in commands} == {("os-2", "disentangled"), ("os-2", "msrl")}
    assert all(out.strip("'").endswith(f"bundles/os-2-{method}-student") for _, method, out in commands)
