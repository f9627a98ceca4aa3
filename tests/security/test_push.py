"""What goes to the hub is the bundle's files, whatever else lies in its folder or in the environment."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from histill.bundle import hub, manifest

MEMBERS = 2


@pytest.fixture
def uploaded(tmp_path, monkeypatch):
    """A folder with a bundle's files and others; gives the arguments of the upload."""
    import huggingface_hub

    asked = {}

    class Hub:
        def create_repo(self, *_, **__):
            pass

        def repo_info(self, *_, **__):
            return SimpleNamespace(private=True)

        def upload_folder(self, **arguments):
            asked.update(arguments)
            return SimpleNamespace(commit_url="https://hub/commit")

    folder = tmp_path / "secret-place" / "bundle"
    about = {"digest": "0" * 20, "histill": "1.0"}
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    read = SimpleNamespace(members=[None] * MEMBERS, about=about)
    monkeypatch.setattr(hub.Bundle, "read", classmethod(lambda cls, path: read))
    hub.push(folder, "lab/model")
    return folder, asked


def test_only_files_of_a_bundle_are_asked_for(uploaded):
    folder, asked = uploaded
    patterns = asked["allow_patterns"]
    assert set(patterns) == {manifest.MANIFEST, *manifest.names(MEMBERS)}
    assert not any(mark in pattern for pattern in patterns for mark in "*?[]")  # names, so that nothing else fits
    assert not any(pattern.startswith(("/", ".")) or ".." in pattern for pattern in patterns)
    assert asked["folder_path"] == folder


def test_what_goes_with_it_names_neither_folder_nor_token(uploaded):
    _, asked = uploaded
    said = " ".join(str(value) for key, value in asked.items() if key != "folder_path")
    assert "secret-place" not in said
    assert "hf_x" not in said
    assert "token" not in asked
