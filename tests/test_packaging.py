from __future__ import annotations

import re
import tomllib

import yaml


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
