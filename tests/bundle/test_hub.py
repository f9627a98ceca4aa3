"""Bundles to the hub and back, on a hub that is a folder."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from histill.bundle.bundle import Bundle
from histill.bundle.hub import pull, push
from histill.cli import app
from histill.errors import HistillError
from tests.encoders.conftest import Hub, _handler, shell  # noqa: F401

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_rightrightright"


class FakeHub:
    """Repositories as folders; what `HfApi` and `snapshot_download` would do with them."""

    def __init__(self, folder: Path):
        self.folder, self.public, self.asked, self.fails = folder, set(), [], None

    def _begin(self, what: str) -> None:
        self.asked.append(what)
        if self.fails:
            raise self.fails

    def create_repo(self, repository, *, private, repo_type, exist_ok):
        self._begin("create")
        assert (repo_type, exist_ok) == ("model", True)
        if not (self.folder / repository).exists():
            (self.folder / repository).mkdir(parents=True)
            self.public |= set() if private else {repository}

    def repo_info(self, repository, *, repo_type, revision=None):
        self._begin(f"info {revision}")
        return SimpleNamespace(sha=COMMIT, private=repository not in self.public)

    def upload_folder(self, *, repo_id, repo_type, folder_path, allow_patterns, delete_patterns, commit_message):
        self._begin(commit_message)
        place = self.folder / repo_id
        for path in [path for path in place.rglob("*") if path.is_file()]:
            if any(fnmatch.fnmatch(path.relative_to(place).as_posix(), pattern) for pattern in delete_patterns):
                path.unlink()
        for name in allow_patterns:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(folder_path) / name, place / name)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/{COMMIT}")

    def snapshot_download(self, repository, *, revision, local_dir, allow_patterns):
        self._begin("download")
        assert revision == COMMIT
        for path in [path for path in (self.folder / repository).rglob("*") if path.is_file()]:
            name = path.relative_to(self.folder / repository).as_posix()
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (Path(local_dir) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, Path(local_dir) / name)
        (Path(local_dir) / ".cache" / "huggingface").mkdir(parents=True)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeHub:
    import huggingface_hub

    made = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return made


@pytest.fixture
def bundle(exported) -> Path:
    return exported("os", "linear-slide", "train")


def listing(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_and_back(fake, bundle, tmp_path):
    said = CliRunner().invoke(app, ["push", str(bundle), "lab/model", "--private"])
    assert said.exit_code == 0, said.output
    assert f"lab/model/commit/{COMMIT}" in said.output
    assert fake.public == set()
    said = CliRunner().invoke(app, ["pull", "lab/model", "--out", str(tmp_path / "back"), "--revision", "v1"])
    assert said.exit_code == 0, said.output
    assert COMMIT in said.output
    assert "info v1" in fake.asked
    assert listing(tmp_path / "back") == listing(bundle)
    assert Bundle.read(tmp_path / "back").task == Bundle.read(bundle).task


def test_a_new_bundle_takes_the_place_of_the_old_one_and_leaves_the_rest(fake, bundle, exported, tmp_path):
    place = fake.folder / "lab/model"
    for name in ("members/7/model.safetensors", "figure.png", ".gitattributes"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"old")
    push(bundle, "lab/model")
    assert set(listing(place)) == {*listing(bundle), "figure.png", ".gitattributes"}
    pull("lab/model", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(bundle)


def test_a_private_bundle_never_goes_into_a_public_repository(fake, bundle):
    push(bundle, "lab/model")
    before = listing(fake.folder / "lab/model")
    (fake.folder / "lab/model" / "README.md").write_text("old")
    with pytest.raises(HistillError, match="lab/model exists and is public"):
        push(bundle, "lab/model", private=True)
    assert listing(fake.folder / "lab/model") == before | {"README.md": b"old"}


def test_what_is_no_bundle_is_not_pushed(fake, bundle, tmp_path):
    broken = shutil.copytree(bundle, tmp_path / "broken")
    (broken / "patients.csv").write_text("id")
    with pytest.raises(HistillError, match=r"patients.csv is no file of it"):
        push(broken, "lab/model")
    with pytest.raises(HistillError, match="is no name of a repository"):
        push(bundle, "https://hub/lab/model")
    assert fake.asked == []


def test_what_is_no_bundle_is_not_kept(fake, bundle, tmp_path):
    push(bundle, "lab/model")
    (fake.folder / "lab/model/members/0/model.safetensors").write_bytes(b"of another version")
    out = tmp_path / "back"
    with pytest.raises(HistillError, match=r"lab/model at 0123456789ab holds no bundle.*members/0/model.safetensors"):
        pull("lab/model", out)
    assert not out.exists()
    assert not list(tmp_path.glob(".back*"))
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(HistillError, match="back exists"):
        pull("lab/model", out)


def failures():
    from huggingface_hub import errors

    def of(kind, status):
        response = SimpleNamespace(status_code=status, headers={}, request=None)
        return kind(f"no: {TOKEN} is wrong", response=response)

    return [
        (of(errors.GatedRepoError, 403), "it is gated"),
        (of(errors.RepositoryNotFoundError, 404), "does not exist, or is hidden from the token in use"),
        (of(errors.RevisionNotFoundError, 404), "no such revision"),
        (of(errors.HfHubHTTPError, 403), "the token in use may not"),
        (of(errors.HfHubHTTPError, 500), "the hub answers 500"),
        (errors.OfflineModeIsEnabled("off"), "HF_HUB_OFFLINE is set"),
        (ConnectionError(f"refused {TOKEN}"), "ConnectionError"),
    ]


@pytest.mark.parametrize("number", range(7))
def test_what_the_hub_does_not_give_is_said_with_a_mend_and_without_the_token(fake, bundle, tmp_path, number):
    fake.fails, says = failures()[number]
    for run in (lambda: pull("lab/model", tmp_path / "back"), lambda: push(bundle, "lab/model")):
        with pytest.raises(HistillError, match=says) as caught:
            run()
        assert caught.value.mend
        assert TOKEN not in str(caught.value)
        assert "lab/model" in str(caught.value)
    assert not (tmp_path / "back").exists()


def test_the_hub_accepts_the_card(bundle):
    """Its own reader of headers finds what it shows of a model."""
    from huggingface_hub import ModelCard

    data = ModelCard.load(bundle / "README.md").data
    assert (data.library_name, data.license, "histill" in data.tags) == ("histill", "other", True)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A web server that also lists the files of a repository."""
    made = Hub()

    class Handler(_handler(made)):
        def do_GET(self) -> None:
            repository, tree, _ = self.path.removeprefix("/api/models/").partition("/tree/")
            if not tree:
                return super().do_GET()
            files = [{"type": "file", "path": k, "size": len(v), "oid": "0"} for k, v in made.files[repository].items()]
            return self.reply(200, json.dumps(files).encode(), Content_Type="application/json")

        do_HEAD = do_GET

    made.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_through_the_real_client(hub, shell, bundle, tmp_path):  # noqa: F811
    """A process of its own against a small web server."""
    hub.files["lab/model"] = {**listing(bundle), ".gitattributes": b"", "model.pkl": b"never asked for"}
    done = shell.run("pull", "lab/model", "--out", "back")
    assert done.returncode == 0, done.stderr
    assert listing(tmp_path / "back") == listing(bundle)
    assert not any("model.pkl" in path for path in hub.asked)
    hub.gated.add("lab/model")
    refused = shell.run("pull", "lab/model", "--out", "other", HF_TOKEN="hf_wrongwrongwrong")
    assert refused.returncode == 1
    assert "it is gated" in refused.stderr
    assert "hf_wrong" not in refused.stdout + refused.stderr
    assert not (tmp_path / "other").exists()
