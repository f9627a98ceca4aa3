"""Fetching, from a hub that is a web server of this machine; histill runs in processes of its own."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from histill.encoders import prefetch, recipes
from histill.encoders.build import build
from histill.errors import HistillError

ENCODE = """
import sys, numpy as np
from histill.encoders import prefetch, recipes
from histill.encoders.build import build
recipe = recipes.get("tiny")
weights = prefetch.for_run(recipe, given=None, receipt=sys.argv[1])
tiles = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
np.save(sys.argv[2], build(recipe, weights=weights, device="cpu").encode(tiles, 0.5))
"""


def test_fetched_once_then_offline(shell, hub, tiny, tiny_weights, tmp_path):
    """The whole way: fetch, receipt, and vectors without a network that are those of the published weights."""
    hub.files["lab/tiny"] = {"config.json": b"{}", "model.safetensors": tiny_weights, "big.bin": b"0" * 1000}
    receipt = tmp_path / "receipts" / "encoder.json"
    done = shell.run("encoders", "prefetch", "tiny", "--out", str(receipt))
    assert done.returncode == 0, done.stderr
    written = json.loads(receipt.read_text())
    digest = hashlib.sha256(tiny_weights).hexdigest()
    assert (written["repository"], written["revision"], written["pinned"]) == ("lab/tiny", hub.commit, False)
    assert [(entry["name"], entry["sha256"]) for entry in written["files"]] == [("model.safetensors", digest)]
    assert digest in done.stdout
    assert not any("big.bin" in path or "config.json" in path for path in hub.asked), (
        "more than the weights was fetched"
    )

    hub.server.shutdown()
    asked = len(hub.asked)
    done = shell.python("-c", ENCODE, str(receipt), str(tmp_path / "x.npy"), HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert len(hub.asked) == asked
    file = tmp_path / "own.safetensors"
    file.write_bytes(tiny_weights)
    recipe = recipes.get("tiny")
    tiles = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    own = build(recipe, weights=prefetch.prefetch(recipe, given=file), device="cpu").encode(tiles, 0.5)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), own, rtol=1e-5, atol=1e-6)

    checked = shell.run("encoders", "check", "tiny", HF_HUB_OFFLINE="1")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "works offline" in checked.stdout
    again = shell.run(*["encoders", "prefetch", "tiny", "--no-verify", "--out"], str(receipt), HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert json.loads(receipt.read_text()) == written


def test_gated_weights_need_terms_and_a_token(shell, hub, tiny, tiny_weights, tmp_path):
    hub.files["lab/tiny"] = {"model.safetensors": tiny_weights}
    hub.gated.add("lab/tiny")
    receipt = tmp_path / "encoder.json"
    done = shell.run("encoders", "prefetch", "tiny", "--out", str(receipt))
    assert done.returncode == 1
    assert "gated, and no token was found" in done.stderr
    assert "accept its terms" in done.stderr
    assert "Traceback" not in done.stderr
    assert not receipt.exists()
    wrong = shell.run("encoders", "prefetch", "tiny", HF_TOKEN="hf_wrongwrongwrong")
    assert "the token has no access" in wrong.stderr
    check = shell.run("encoders", "check", "tiny", HF_TOKEN="hf_wrongwrongwrong")
    assert check.returncode == 1
    assert "gated (asked the hub just now)" in check.stdout
    assert "histill encoders prefetch tiny" in check.stdout
    right = shell.run(*["encoders", "prefetch", "tiny", "--no-verify", "--out"], str(receipt), HF_TOKEN=hub.token)
    assert right.returncode == 0, right.stderr
    for done in (wrong, check, right):
        assert "hf_" not in done.stdout + done.stderr, "a token was printed"
    assert hub.token not in receipt.read_text()


def test_what_the_hub_does_not_give_is_said_with_a_mend(shell, hub, tiny, tiny_weights, tmp_path):
    def failed(**environment: str) -> str:
        done = shell.run("encoders", "prefetch", "tiny", "--out", str(tmp_path / "encoder.json"), **environment)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "mend:" in done.stderr
        assert not (tmp_path / "encoder.json").exists()
        return done.stderr

    assert "does not exist, or is hidden" in failed()
    hub.files["lab/tiny"] = {"README.md": b"soon"}
    assert "does not hold the weights of 'tiny' (model.safetensors or pytorch_model.bin)" in failed()
    assert "HF_HUB_OFFLINE is set, and they are not in the cache" in failed(HF_HUB_OFFLINE="1")
    assert "run 'histill encoders prefetch tiny' where the hub can be reached" in failed(
        HF_ENDPOINT="http://127.0.0.1:9"
    )
    hub.files["lab/tiny"] = {"model.safetensors": tiny_weights}
    hub.lies.add("model.safetensors")
    assert "is damaged: its sha256 is" in failed()
    hub.lies.clear()
    from safetensors.torch import load, save

    shutil.rmtree(tmp_path / "hf")
    hub.files["lab/tiny"] = {
        "model.safetensors": save({k: v for k, v in load(tiny_weights).items() if k != "cls_token"})
    }
    assert "does not hold the weights of encoder 'tiny': keys missing: cls_token" in failed()


def test_no_room_is_said_before_anything_is_fetched(monkeypatch, tmp_path):
    from histill.encoders import hub

    class Disk:
        free = 10**6

    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: Disk)
    monkeypatch.setattr(hub, "cached_file", lambda *_: None)
    repository = hub.Repository("0" * 40, False, {"pytorch_model.bin": (2 * 10**9, None)})
    with pytest.raises(HistillError, match=r"need 2.0 GB, and .* has 0.0 GB free") as caught:
        hub.fetch(recipes.get("uni"), repository)
    assert "HF_HOME" in caught.value.mend


@pytest.fixture
def local(tmp_path, tiny, tiny_weights):
    """A local file of the encoder `tiny`, and where its receipt goes."""
    file = tmp_path / "weights" / "any-name.safetensors"
    file.parent.mkdir()
    file.write_bytes(tiny_weights)
    return recipes.get("tiny"), file, tmp_path / "receipts" / "encoder.json"


def test_a_local_file_is_hashed_once_and_again_when_it_changes(local, monkeypatch, tiny_weights):
    recipe, file, receipt = local
    hashed = []
    own = prefetch.weights.sha256
    monkeypatch.setattr(prefetch.weights, "sha256", lambda path: hashed.append(path) or own(path))
    first = prefetch.for_run(recipe, given=file, receipt=receipt)
    assert prefetch.for_run(recipe, given=file, receipt=receipt) == first
    assert len(hashed) == 1
    file.write_bytes(tiny_weights[:-4] + b"\x00\x00\x80\x3f")
    other = prefetch.for_run(recipe, given=file, receipt=receipt)
    assert other.identity != first.identity
    assert len(hashed) == 2


def test_weights_are_known_by_content_not_by_place(local, tmp_path):
    recipe, file, receipt = local
    first = prefetch.for_run(recipe, given=file, receipt=receipt)
    moved = file.rename(tmp_path / "moved.safetensors")
    assert prefetch.for_run(recipe, given=moved, receipt=receipt).identity == first.identity


def test_a_receipt_of_another_encoder_does_not_count(local):
    from dataclasses import replace

    recipe, file, receipt = local
    prefetch.for_run(recipe, given=file, receipt=receipt)
    assert prefetch.read(recipe, given=file, receipt=receipt)
    assert (
        prefetch.read(replace(recipe, crop=None, resize=160, precision="float16"), given=file, receipt=receipt) is None
    )
    assert prefetch.read(recipe, given=None, receipt=receipt) is None


def test_weights_gone_from_the_cache_are_named(local):
    recipe, file, receipt = local
    prefetch.for_run(recipe, given=file, receipt=receipt)
    written = json.loads(receipt.read_text())
    receipt.write_text(json.dumps({**written, "weights": None, "revision": "0" * 40, "repository": "lab/tiny"}))
    file.unlink()
    with pytest.raises(HistillError, match="no longer in the hub's cache"):
        prefetch.for_run(recipe, given=None, receipt=receipt)


def test_weights_that_are_not_there(local, tmp_path):
    recipe, _, receipt = local
    with pytest.raises(HistillError, match=r"none\.pt does not exist"):
        prefetch.for_run(recipe, given=tmp_path / "none.pt", receipt=receipt)
    (tmp_path / "empty").mkdir()
    with pytest.raises(HistillError, match="does not hold the weights of 'tiny'"):
        prefetch.for_run(recipe, given=tmp_path / "empty", receipt=receipt)
    with pytest.raises(HistillError, match="'ctranspath' lies in no public repository"):
        prefetch.prefetch(recipes.get("ctranspath"))
    with pytest.raises(HistillError, match="has no weights"):
        prefetch.prefetch(recipes.get("colour-texture"))
    assert prefetch.for_run(recipes.get("random-test-vit"), given=None, receipt=receipt) is None
    assert not receipt.exists()


def test_a_file_in_a_folder_of_a_dataset(shell, hub, install, tmp_path):
    """CHIEF's CTransPath lies so."""
    install(
        {
            "nested": """
                recipes = {
                    "nested": {
                        "builder": "plugin", "hub": "lab/bench", "repo_type": "dataset", "file": "a/b/w.pth", "dim": 2,
                        "mpp": [0.1, 9], "licence": "MIT", "source": "a test",
                    }
                }
                def build(recipe, *, weights, device):
                    return None
            """
        }
    )
    hub.files["lab/bench"] = {"a/b/w.pth": b"weights", "w.pth": b"others"}
    done = shell.run("encoders", "prefetch", "nested", "--out", str(tmp_path / "encoder.json"))
    assert done.returncode == 0, done.stderr
    entry = json.loads((tmp_path / "encoder.json").read_text())["files"][0]
    assert (entry["name"], entry["sha256"]) == ("a/b/w.pth", hashlib.sha256(b"weights").hexdigest())
    checked = shell.run("encoders", "check", "nested", HF_HUB_OFFLINE="1")
    assert "works offline" in checked.stdout, checked.stdout
