from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from histill.encoders import recipes, slide_recipes


def test_list_shows_every_encoder(shell):
    lines = shell.run("encoders", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(recipes.builtin())
    uni = next(line for line in lines if line.startswith("uni "))
    for part in ("1024", "0.45-0.55", "256/224", "gated", "77ffbca1ee", "CC-BY-NC-ND-4.0"):
        assert part in uni
    slides = shell.run("encoders", "list", "--slide").stdout.splitlines()
    assert [line.split()[0] for line in slides[1:]] == list(slide_recipes.registry())


@pytest.mark.parametrize("command", ["list", "show uni", "show titan"])
def test_looking_encoders_up_imports_nothing_heavy(command):
    code = f"""
import sys
from histill.cli import app
try:
    app({["encoders", *command.split()]!r})
except SystemExit:
    pass
print(sorted({{"torch", "timm", "transformers", "huggingface_hub", "pandas"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_show(shell):
    assert json.loads(shell.run("encoders", "show", "virchow2").stdout)["dim"] == 2560
    assert json.loads(shell.run("encoders", "show", "titan").stdout)["tile_encoder"] == "conch-v1-5"
    failed = shell.run("encoders", "show", "virchow3")
    assert failed.returncode == 1
    assert "did you mean 'virchow" in failed.stderr


def test_check_says_what_to_do_without_a_network(shell, tmp_path):
    def check(name: str, *arguments: str, code: int) -> str:
        done = shell.run("encoders", "check", name, *arguments, HF_HUB_OFFLINE="1")
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    assert check("colour-texture", code=0).strip().endswith("ready")
    text = check("uni", code=1)
    for part in (
        "CC-BY-NC-ND-4.0",
        "commit 77ffbca1",
        "gated (by the registry",
        "HF_TOKEN",
        "not there",
        "prefetch uni",
    ):
        assert part in text
    assert "unpinned" in check("dinov2-s", code=1)
    assert "in no public repository" in check("ctranspath", code=1)
    (tmp_path / "ctranspath.pth").write_bytes(b"x")
    assert "ready" in check("ctranspath", "--weights", str(tmp_path / "ctranspath.pth"), code=0)
    assert "does not exist" in check("ctranspath", "--weights", str(tmp_path / "none.pth"), code=1)
    assert ("musk is not installed" in check("musk", code=1)) == (find_spec("musk") is None)
    assert "run only where that is allowed" in shell.run("encoders", "check", "titan").stdout
