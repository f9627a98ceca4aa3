"""The Snakefile as a module of another workflow, and beside storage plug-ins."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import Planted, Project

pytestmark = pytest.mark.workflow

SETTINGS = {
    "tasks": {"diagnosis": {"type": "classification", "label": "diagnosis"}},
    "folds": {"n": 2},
    "methods": {"run": ["linear-slide"]},
}
USING = """\
{before}
configfile: "config.yaml"


module histill:
    snakefile:
        {snakefile!r}
    config:
        config["histill"]
{prefix}

use rule * from histill as histill_*


onstart:
    histill.onstart()


onerror:
    histill.onerror()


rule summary:
    default_target: True
    input:
        rules.histill_all.input,
    output:
        "summary.txt",
    shell:
        "wc -c {{input:q}} > {{output:q}}"
{after}
"""


def write(folder: Path, root: Path, *, before: str = "", prefix: str = "", after: str = "") -> None:
    text = USING.format(snakefile=str(root / "Snakefile"), before=before, prefix=prefix, after=after)
    (folder / "Snakefile").write_text(text)


@pytest.fixture(scope="module")
def using(tmp_path_factory, root) -> Project:
    """A workflow of its own, in another folder, that uses histill's rules on a planted cohort."""
    folder = tmp_path_factory.mktemp("module")
    planted = Planted.make(root, folder, {})
    planted.configure()
    cohort = yaml.safe_load((folder / "config.yaml").read_text()) | SETTINGS
    (folder / "config.yaml").write_text(yaml.safe_dump({"own": {"key": 1}, "histill": cohort}))
    write(folder, root)
    return Project(folder, folder)


def test_rules_are_planned_under_their_new_names(using):
    planned = using.planned()
    named = {"transcriptome", "cohort", "audit", "train_runs", "predict", "evaluate", "report", "manifest"}
    assert set(planned) == {f"histill_{name}" for name in named} | {"summary"}


def test_rules_run_with_the_config_of_the_module_and_a_rule_publishes_what_they_made(using, root, tmp_path):
    if importlib.util.find_spec("snakemake_storage_plugin_fs") is None or shutil.which("rsync") is None:
        pytest.skip("needs snakemake-storage-plugin-fs (extra 'storage') and rsync")
    results = Path(yaml.safe_load((using.work / "config.yaml").read_text())["histill"]["results"])
    publish = f"""

rule publish:
    input:
        {str(results / "receipts" / "transcriptome.json")!r},
    output:
        storage.fs({str(tmp_path / "published.json")!r}),
    shell:
        "cp {{input:q}} {{output:q}}"
"""
    write(using.work, root, before='storage:\n    provider="fs",\n\n', after=publish)
    using.snakemake("publish")
    made = (results / "receipts" / "transcriptome.json").read_text()
    assert (tmp_path / "published.json").read_text() == made
    assert (results / "config.json").exists()


def test_results_that_would_be_torn_apart_are_refused_with_the_mend(using, root):
    config = yaml.safe_load((using.work / "config.yaml").read_text())
    config["histill"]["results"] = "results"  # what is absolute, a prefix leaves alone
    folder = using.work / "refused"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write(folder, root, prefix='    prefix:\n        "elsewhere"\n')
    done = Project(folder, folder).snakemake("-n", check=False)
    assert done.returncode != 0
    assert "cannot be moved by the prefix of a module" in done.stderr
    assert "mend:" in done.stderr
