"""What is recorded of the software that computes: its versions, its commit, and nothing of the machine."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess

import pytest

from histill import software
from histill.provenance import digest, read_json


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty package in the place of histill; what is known of histill's own is forgotten before and after."""

    def forget():
        for known in (software.commit, software.source_digest, software.record):
            known.cache_clear()

    folder = tmp_path / "repository" / "src" / "histill"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(software, "_PACKAGE", folder)
    monkeypatch.setattr(software, "_installed_commit", lambda: None)
    monkeypatch.delenv(software.COMMIT, raising=False)
    forget()
    yield folder
    forget()


def git(folder, *arguments):
    names = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *names, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(package):
    if shutil.which("git") is None:
        pytest.skip("needs git")
    git(package, "init")
    git(package, "add", ".")
    git(package, "commit", "-m", "first")
    return package


def test_commit_is_that_of_the_checkout(checkout):
    assert software.commit() == (git(checkout, "rev-parse", "HEAD"), False)


def test_code_that_was_changed_since_is_said(checkout):
    (checkout / "__init__.py").write_text("changed = True\n")
    assert software.commit() == (git(checkout, "rev-parse", "HEAD"), True)


def test_commit_of_a_repository_that_does_not_track_the_package_is_none_of_ours(checkout, monkeypatch):
    installed = checkout / "site-packages" / "histill"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(software, "_PACKAGE", installed)
    assert software.commit() == (None, None)


def test_image_says_its_commit_by_the_environment(package, monkeypatch):
    monkeypatch.setenv(software.COMMIT, "c" * 40)
    assert software.commit() == ("c" * 40, None)


def test_digest_of_the_source_follows_links_to_folders_and_leaves_bytecode_out(package, tmp_path):
    empty = software.source_digest()
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "genes.txt").write_text("TP53\n")
    (package / "resources").symlink_to(tmp_path / "resources")
    software.source_digest.cache_clear()
    linked = software.source_digest()
    assert linked != empty
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_bytes(b"bytecode")
    software.source_digest.cache_clear()
    assert software.source_digest() == linked


def test_record_names_no_machine():
    assert platform.node() not in json.dumps(software.record())
    assert set(software.record()["packages"]) <= set(software.PACKAGES)


def test_record_is_written_once_and_named_by_its_digest(tmp_path):
    made = software.sign(tmp_path, {"stage": "cohort"})["software"]
    path = tmp_path / software.FOLDER / f"{made}.json"
    assert read_json(path) == software.record()
    assert made == digest(software.record())
    before = path.stat()
    assert software.mark(tmp_path) == made
    assert path.stat().st_mtime_ns == before.st_mtime_ns
