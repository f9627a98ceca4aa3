from __future__ import annotations

from dataclasses import replace

import pytest

from histill.encoders import recipes, weights
from histill.errors import HistillError

TIMM, TRANSFORMERS, NESTED = (recipes.get(name) for name in ("uni2-h", "phikon", "chief-ctranspath"))
SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


@pytest.mark.parametrize(
    ("recipe", "names", "chosen"),
    [
        (TIMM, ["README.md", "pytorch_model.bin", "model.safetensors"], ["model.safetensors"]),
        (TIMM, ["README.md", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (TIMM, ["model.pth"], []),
        (replace(TIMM, file="model.pth"), ["model.pth", "model.safetensors"], ["model.pth"]),
        (replace(TIMM, file="model.pth"), ["model.safetensors"], []),
        (TRANSFORMERS, ["config.json", "pytorch_model.bin", "tf_model.h5"], ["config.json", "pytorch_model.bin"]),
        (TRANSFORMERS, ["config.json", "model.safetensors", "pytorch_model.bin"], ["config.json", "model.safetensors"]),
        (
            TRANSFORMERS,
            ["config.json", "model.safetensors.index.json", *SHARDS, "evil.py"],
            ["config.json", "model.safetensors.index.json", *SHARDS],
        ),
        (TRANSFORMERS, ["model.safetensors"], []),
        (NESTED, ["fm_v1/ctranspath/CHIEF_CTransPath.pth", "x"], ["fm_v1/ctranspath/CHIEF_CTransPath.pth"]),
        (NESTED, ["CHIEF_CTransPath.pth"], ["CHIEF_CTransPath.pth"]),
    ],
)
def test_what_is_taken_of_a_repository(recipe, names, chosen):
    assert weights.choose(recipe, names) == chosen


def test_local_weights_are_a_file_of_any_name_or_a_folder(tmp_path):
    (tmp_path / "any.pt").touch()
    assert weights.local(TIMM, tmp_path / "any.pt") == (tmp_path, ["any.pt"])
    with pytest.raises(HistillError, match="does not hold the weights of 'uni2-h'"):
        weights.local(TIMM, tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert weights.local(TIMM, tmp_path) == (tmp_path, ["model.safetensors"])
    with pytest.raises(HistillError, match="does not hold the weights of 'phikon'") as caught:
        weights.local(TRANSFORMERS, tmp_path / "model.safetensors")
    assert "config.json" in caught.value.mend
    (tmp_path / "config.json").touch()
    for given in (tmp_path, tmp_path / "model.safetensors"):
        assert weights.local(TRANSFORMERS, given) == (tmp_path, ["config.json", "model.safetensors"])
    with pytest.raises(HistillError, match=r"none does not exist"):
        weights.local(TIMM, tmp_path / "none")
