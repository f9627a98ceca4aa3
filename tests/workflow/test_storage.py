"""Storage plug-ins: products go to the default storage, what the run stands on stays."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tarfile

import pytest
import yaml

from tests.workflow.conftest import Project

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_storage_plugin_fs") is None or shutil.which("rsync") is None,
        reason="needs snakemake-storage-plugin-fs (extra 'storage') and rsync",
    ),
]
FS = ("--default-storage-provider", "fs")
PRODUCTS = {"report.html", "ro-crate-metadata.json", "evaluation/diagnosis.json", "evaluation/diagnosis.tsv"}


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory) -> Project:
    return finished.copy(tmp_path_factory.mktemp("storage"))


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["archive/run-1", "{tmp}/run 1"])
def test_products_go_to_the_storage_and_nothing_else(project, tmp_path, place):
    place = place.format(tmp=tmp_path)
    arguments = (*FS, "--default-storage-prefix", place)
    before = files(project.work / "results")
    assert project.planned(*arguments) == {"publish_product": len(PRODUCTS)}
    project.snakemake(*arguments)
    archive = project.work / place
    assert files(archive) == PRODUCTS
    for product in PRODUCTS:
        assert (archive / product).read_bytes() == (project.work / "results" / product).read_bytes()
    assert {name for name in files(project.work / "results") - before if not name.startswith("logs/")} == set()
    assert not project.planned(*arguments)
    assert not project.planned()


def test_bundles_are_published_by_name(project, tmp_path):
    arguments = (*FS, "--default-storage-prefix", str(tmp_path / "archive"))
    project.snakemake("publish", *arguments)
    name = "diagnosis-disentangled-student"
    assert files(tmp_path / "archive") == PRODUCTS | {f"bundles/{name}.tar"}
    with tarfile.open(tmp_path / "archive" / "bundles" / f"{name}.tar") as archive:
        archive.extractall(tmp_path / "bundle", filter="data")
    assert files(tmp_path / "bundle") == files(project.work / "results" / "bundles" / name)
    assert not project.planned("publish", *arguments)


@pytest.mark.skipif(
    importlib.util.find_spec("snakemake_storage_plugin_s3") is None or "HISTILL_S3" not in os.environ,
    reason="needs snakemake-storage-plugin-s3, and a place in HISTILL_S3 (s3://BUCKET/FOLDER) that holds nothing yet",
)
def test_products_go_to_s3_and_its_keys_nowhere(project):
    arguments = ("--default-storage-provider", "s3", "--default-storage-prefix", os.environ["HISTILL_S3"])
    planned = project.planned("publish", *arguments)
    assert (planned["publish_product"], planned["publish_bundle"]) == (len(PRODUCTS), 1)
    project.snakemake("publish", *arguments)
    assert not project.planned("publish", *arguments)
    secret = os.environ["SNAKEMAKE_STORAGE_S3_SECRET_KEY"].encode()
    assert not [path for path in project.work.rglob("*") if path.is_file() and secret in path.read_bytes()]
    done = project.snakemake("-n", *arguments[:2], check=False)
    assert done.returncode != 0
    assert "without a place" in done.stderr


def test_without_a_place_all_stays_where_it_is(project):
    assert not project.planned(*FS)
    assert not project.planned("results/report.html", *FS)


def test_results_made_with_a_provider_are_those_made_without(project):
    table = project.work / "results" / "evaluation" / "diagnosis.json"
    made = table.read_text()
    table.unlink()
    project.snakemake("results/evaluation/diagnosis.json", *FS)
    assert table.read_text() == made
    assert not project.planned()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*FS, "--default-storage-prefix", "results"), "lies in the folder of the results"),
        ((*FS, "--default-storage-prefix", "results/figures"), "lies in the folder of the results"),
        ((*FS, "--default-storage-prefix", "archive/{run}"), "holds braces"),
        (("--default-storage-prefix", "archive"), "but no storage provider"),
        (("publish",), "no storage to publish to"),
        (("publish", *FS), "no storage to publish to"),
    ],
)
def test_storage_that_would_hold_nothing_is_refused_with_the_mend(project, arguments, words):
    done = project.snakemake("-n", *arguments, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr  # what stops the planning of a job, Snakemake prints among the jobs
    assert words in said
    assert "--default-storage-prefix" in said.split("mend:")[1]


def test_a_workflow_that_uses_histill_may_have_a_default_storage(project, tmp_path, root):
    config = yaml.safe_load((project.work / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"histill": config}))
    for name in ("demo", "results", ".snakemake"):
        shutil.copytree(project.work / name, tmp_path / name, symlinks=True)
    (tmp_path / "Snakefile").write_text(f"""
configfile: "config.yaml"


module histill:
    snakefile:
        {str(project.source / "Snakefile")!r}
    config:
        config["histill"]


use rule * from histill as histill_*


onstart:
    histill.onstart()


rule summary:
    default_target: True
    input:
        local("results/report.html"),
    output:
        "summary.txt",
    shell:
        "wc -c {{input:q}} > {{output:q}}"
""")
    Project(tmp_path, tmp_path).snakemake(*FS, "--default-storage-prefix", "archive")
    assert (tmp_path / "archive" / "summary.txt").read_text().endswith("results/report.html\n")
