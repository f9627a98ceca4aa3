"""A copy of the project and a finished small cohort, to plan and run the real DAG on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG = {
    "results": "results",
    "batch_size": 4,
    "cohort": {"slides": "demo/slides.csv", "clinical": "demo/clinical.csv", "expression": "demo/expression.tsv.gz"},
    "tasks": {"diagnosis": {"type": "classification", "label": "diagnosis"}},
    "folds": {"n": 2},
    "training": {"device": "cpu", "model": {"epochs": 2}},
    "methods": {"run": ["disentangled", "linear-both"]},
    "evaluation": {"bootstrap": 100},
}


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `changes` in place."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


@dataclass
class Project:
    """A project copy and a working folder."""

    source: Path
    work: Path

    def snakemake(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run snakemake in the working folder with the copy's package."""
        scripts = str(Path(sys.executable).parent)
        env = {
            **os.environ,
            "PYTHONPATH": str(self.source / "src"),
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            **environment,
        }
        command = [sys.executable, "-m", "snakemake", "-s", str(self.source / "Snakefile")]
        done = subprocess.run(
            [*command, "--configfile", "config.yaml", "--cores", "2", *arguments],
            cwd=self.work,
            env=env,
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done

    def configure(self, **changes: Any) -> None:
        (self.work / "config.yaml").write_text(yaml.safe_dump(merge(CONFIG, changes)))

    def planned(self, *arguments: str, **environment: str) -> Counter:
        """Rules that would run, and how often, but for the target rule and the manifest, which follows every config."""
        text = self.snakemake("-n", *arguments, **environment).stdout
        rules = Counter(re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):", text, re.MULTILINE))
        return Counter({name: count for name, count in rules.items() if name not in ("all", "manifest")})

    def copy(self, folder: Path) -> Project:
        """The same cohort in a folder of its own, modification times kept."""
        shutil.copytree(self.work, folder / "work", symlinks=True)
        return Project(self.source, folder / "work")


@dataclass
class Planted(Project):
    """Sheets and features of a planted cohort: only what comes after features is planned.

    Attributes
    ----------
    settings
        What every config of the project has beside the cohort.
    """

    settings: Mapping[str, Any]

    @classmethod
    def make(cls, source: Path, work: Path, settings: Mapping[str, Any]) -> Planted:
        """40 patients with planted signals, made below `work`."""
        from histill.demo.planted import make
        from histill.features.store import write_store

        make(work / "cohort", write_store, patients=40, tiles=16, dim=16)
        return cls(source, work, settings)

    def configure(self, **changes: Any) -> None:
        given = yaml.safe_load((self.work / "cohort" / "config.yaml").read_text())
        (self.work / "config.yaml").write_text(yaml.safe_dump(merge({**given, **self.settings}, changes)))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, root) -> Project:
    """A finished run on 20 small synthetic patients whose sheets are the user's own. Do not change it: `copy` it."""
    folder = tmp_path_factory.mktemp("project")
    source, work = folder / "source", folder / "work"
    source.mkdir()
    work.mkdir()
    for name in ("src", "workflow", "resources"):
        shutil.copytree(root / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "Snakefile", source)
    project = Project(source, work)
    project.configure()

    from histill.config import complete
    from histill.demo.make import make

    options = complete({"results": "r", "demo": {"patients": 20, "size_px": 1024}})["demo"]
    make(options, work / "demo", workers=2)
    # The generator writes paths for its own place; a user's sheet has the user's.
    sheet = work / "demo" / "slides.csv"
    sheet.write_text(re.sub(r"[^,\n]*/slides/", "demo/slides/", sheet.read_text()))
    project.snakemake()
    return project
