from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from histill import __version__
from histill.software import source_digest


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    found = (re.fullmatch(r"\s*([A-Za-z0-9_.-]+)==([^\s;]+).*", line) for line in lines)
    return {canonical(match[1]): match[2] for match in found if match}


def test_every_dependency_is_pinned(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pinned = pins((root / "constraints.txt").read_text().splitlines())
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {canonical(re.match(r"[A-Za-z0-9_.-]+", entry)[0]) for group in groups for entry in group}
    assert wanted <= pinned.keys()


def test_conda_environment_has_the_same_versions(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pinned = pins((root / "constraints.txt").read_text().splitlines())
    environment = yaml.safe_load((root / "envs" / "histill.yaml").read_text())
    listed = pins(next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)))
    wanted = {canonical(re.match(r"[A-Za-z0-9_.-]+", entry)[0]) for entry in project["dependencies"]}
    assert listed.keys() == wanted
    assert all(pinned[name] == version for name, version in listed.items())


def test_constraints_name_no_index(root):
    assert not re.search(r"https?://|--index|--find-links", (root / "constraints.txt").read_text())


@pytest.fixture(scope="module")
def built(root, tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that is built from what the sdist holds, as a release is."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], cwd=root, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Callable[..., str]:
    """Runs Python in an environment that has the wheel, the packages of this one, and no source tree."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Of a folder that a .pth adds, .pth files are not read: the editable installation of the source tree stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    def run(*arguments: str) -> str:
        command = [str(folder / "venv" / "bin" / "python"), *arguments]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


def test_wheel_of_the_sdist_holds_all_that_the_source_tree_computes_with(installed):
    code = "import histill; from histill import software; print(histill.__file__); print(software.source_digest())"
    place, digest = installed("-c", code).split()
    assert "site-packages" in place
    assert digest == source_digest()


def test_sdist_holds_the_workflow_and_nothing_twice(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert len(names) == len(set(names))
    wanted = {"Snakefile", "config.yaml", "workflow/rules/common.smk", "LICENSE", "NOTICE", "constraints.txt"}
    assert wanted <= set(names)
    assert not [name for name in names if name.startswith(("results/", ".venv/", ".snakemake/"))]


def test_installed_commands_need_no_source_tree(installed, tmp_path):
    assert "trace" in installed("-m", "histill", "--help")
    assert installed("-m", "histill", "--version").strip() == __version__
    assert "colour-texture" in installed("-m", "histill", "encoders", "list")
    entry = "from importlib.metadata import entry_points as e; print(e(group='console_scripts')['histill'].value)"
    assert installed("-c", entry).strip() == "histill.cli:main"
    config = tmp_path / "config.yaml"
    config.write_text(f"results: {tmp_path / 'results'}\ndemo: {{patients: 12, size_px: 1024}}\n")
    assert "no problems" in installed("-m", "histill", "validate", "--config", str(config))


def test_installed_stage_reads_packaged_genes(installed, tmp_path):
    code = """
import sys
from pathlib import Path
from histill import config
from histill.transcriptome import gene_sets, stage
table = Path(sys.argv[1]) / "expression.csv"
genes = sorted({gene for genes in gene_sets.subspaces(config.complete({"results": "r", "cohort": {}})).values()
                for members in genes.values() for gene in members})
table.write_text("gene,P1,P2,P3\\n" + "".join(f"{gene},{i % 7},{i % 5},{i % 3}\\n" for i, gene in enumerate(genes)))
options = config.complete({"results": sys.argv[1], "cohort": {"expression": str(table)},
                           "transcriptome": {"matrix": {"unit": "counts", "ids": "symbol"}}})
print(stage.run(path=table, config=options, results=sys.argv[1])["counts"]["samples"])
"""
    assert installed("-c", code, str(tmp_path)).splitlines()[-1] == "3"


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, lines that go on put together."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def test_dockerfile_keeps_the_rules_of_the_trade(root):
    lines = instructions((root / "envs" / "Dockerfile").read_text())
    images = [value.split()[0] for name, value in lines if name == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", image) for image in images)  # a version, never `latest`
    last = max(place for place, (name, _) in enumerate(lines) if name == "FROM")
    final = dict(lines[last:])
    assert re.fullmatch(r"[1-9]\d*", final["USER"])
    assert [name for name, _ in lines[last:]].index("USER") > [name for name, _ in lines[last:]].index("RUN")
    assert json.loads(final["ENTRYPOINT"]) == ["snakemake", "--snakefile", "/opt/histill/Snakefile"]
    assert not any(name == "ADD" or "sudo" in value or "curl" in value for name, value in lines)
    installs = [value for name, value in lines if name == "RUN" and "pip install" in value]
    assert all("-c /tmp/constraints.txt" in value for value in installs)


def test_images_are_built_of_files_that_are_there_and_not_ignored(root):
    docker = instructions((root / "envs" / "Dockerfile").read_text())
    copied = {name for kind, value in docker if kind == "COPY" and "--from" not in value for name in value.split()[:-1]}
    kept = (root / "envs" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in kept
    assert {line[1:] for line in kept if line.startswith("!")} == copied
    apptainer = (root / "envs" / "apptainer.def").read_text()
    files = re.search(r"^%files\n((?: +.*\n)+)", apptainer, re.MULTILINE)[1]
    assert {line.split()[0] for line in files.splitlines()} == copied
    assert all((root / name).exists() for name in copied)


def test_both_images_are_of_one_base_and_run_one_snakefile(root):
    docker = instructions((root / "envs" / "Dockerfile").read_text())
    apptainer = (root / "envs" / "apptainer.def").read_text()
    base = re.search(r"^From: (.*)$", apptainer, re.MULTILINE)[1]
    assert {value.split()[0] for name, value in docker if name == "FROM"} == {base}
    assert 'exec snakemake --snakefile /opt/histill/Snakefile "$@"' in apptainer
    assert set(re.findall(r"^%(\w+)", apptainer, re.MULTILINE)) == {
        "files", "post", "environment", "runscript", "test", "labels",
    }  # fmt: skip


def test_conda_environment_has_a_python_that_the_package_allows(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((root / "envs" / "histill.yaml").read_text())
    (python,) = (one for one in environment["dependencies"] if isinstance(one, str) and one.startswith("python="))
    assert Version(python.removeprefix("python=")) in SpecifierSet(project["requires-python"])
    assert environment["channels"] == ["conda-forge", "nodefaults"]  # the other channel has terms of its own


def test_catalogue_entry_says_what_is_true(root):
    usage = yaml.safe_load((root / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    files = [root / "Snakefile", *(root / "workflow" / "rules").glob("*.smk")]
    rules = "".join(path.read_text() for path in files)
    assert usage["report"] is ("report(" in rules)
    assert usage["software-stack-deployment"]["conda"] is bool(re.search(r"^\s+conda:", rules, re.MULTILINE))
    assert usage["software-stack-deployment"]["apptainer"] is bool(re.search(r"^\s*container:", rules, re.MULTILINE))


def test_rules_are_formatted(root):
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.workflow
def test_linter_of_snakemake_finds_nothing(root, tmp_path):
    command = [sys.executable, "-m", "snakemake", "--lint", "-s", str(root / "Snakefile")]
    command += ["--configfile", str(root / "config.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "your workflow is in a good condition" in done.stderr
