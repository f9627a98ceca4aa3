from __future__ import annotations

import re

import pytest
import yaml

from histill.encoders import recipes, slide_recipes
from histill.encoders.build import _COMPOSED
from histill.encoders.layouts import LAYOUTS
from histill.errors import HistillError

ENTRY = {
    "builder": "timm",
    "hub": "lab/tiny",
    "architecture": "test_vit",
    "dim": 64,
    "mpp": [0.4, 0.6],
    "licence": "MIT",
    "source": "a test",
    "input": 160,
    "resize": 160,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


@pytest.mark.parametrize("name", list(recipes.builtin()))
def test_every_recipe_is_whole(name):
    recipe = recipes.get(name)  # made by `make`, which checks each field
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert recipe.licence
    assert recipe.source
    assert recipe.layout in LAYOUTS
    if recipe.builder == "composed":
        assert recipe.architecture in _COMPOSED
    if recipe.builder != "descriptor":
        assert recipe.parameters > 0
    if recipe.revision:
        assert re.fullmatch(r"[0-9a-f]{40}", recipe.revision)


def test_the_registry_holds_what_is_promised():
    text = recipes.REGISTRY.read_text()
    assert len(yaml.safe_load(text)) == len(re.findall(r"^[a-z0-9-]+:", text, flags=re.M)), "a name is given twice"
    assert len([r for r in recipes.builtin().values() if r.builder != "descriptor" and r.seed is None]) >= 30
    assert recipes.get("virchow2").dim == 2560
    assert recipes.get("virchow2-class").dim == 1280


def test_variants_of_one_network_differ_in_pooling_alone():
    for whole, part in (("virchow2", "virchow2-class"), ("h0-mini", "h0-mini-class"), ("midnight-12k",) * 2):
        one, other = (recipes.get(name).as_dict() for name in (whole, part))
        assert {key for key in one if one[key] != other[key]} <= {"name", "pooling", "dim"}


def test_an_unknown_encoder_lists_the_known():
    with pytest.raises(HistillError, match="did you mean 'virchow2'"):
        recipes.get("virchow-2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resizee": 3}, "unknown field 'resizee'"),
        ({"dim": None}, "dim is no positive"),
        ({"mpp": [0.6, 0.4]}, "mpp is no range"),
        ({"builder": "keras"}, "builder 'keras' is none of"),
        ({"pooling": "max"}, "pooling 'max'"),
        ({"mean": [0.5]}, "mean is not three numbers"),
        ({"crop": 100}, "input is 160, and resize and crop give 100"),
        ({"crop": 200, "input": 200}, "crop 200 is larger"),
        ({"architecture": None}, "architecture is missing"),
        ({"hub": None}, "needs hub, or seed"),
        ({"builder": "package"}, "needs package and install"),
    ],
)
def test_recipes_that_make_no_sense(change, message):
    assert recipes.make("x", ENTRY).tile is None
    with pytest.raises(HistillError, match=re.escape(message)):
        recipes.make("x", {**ENTRY, **change})


def test_a_missing_field_is_named():
    with pytest.raises(HistillError, match="recipe of encoder 'x': field 'licence' is missing"):
        recipes.make("x", {key: value for key, value in ENTRY.items() if key != "licence"})


def test_off_recipe_use_is_refused_unless_allowed():
    options = {"tile_size": 224, "mpps": {"10x": 1.0, "20x": 0.5}}
    with pytest.raises(HistillError, match="10x is 1"):
        recipes.check("uni", **options, allow_off_recipe=False)
    assert recipes.check("uni", **options, allow_off_recipe=True) == [
        "encoder 'uni' is made for 0.45 to 0.55 µm per pixel; 10x is 1"
    ]
    assert recipes.check("virchow2", **options, allow_off_recipe=False) == []
    with pytest.raises(HistillError, match="tiles of 224 px"):
        recipes.check("virchow2", tile_size=256, mpps={}, allow_off_recipe=False)
    with pytest.raises(HistillError, match="tiles of 512 or 448 px"):
        recipes.check("conch-v1", tile_size=224, mpps={}, allow_off_recipe=False)
    for name in ("colour-texture", "dinov2-b"):
        assert recipes.check(name, tile_size=96, mpps={"10x": 1.0}, allow_off_recipe=False) == []


def test_slide_encoders_read_tiles_that_a_tile_encoder_is_made_for():
    for recipe in slide_recipes.registry().values():
        tile = recipes.get(recipe.tile_encoder)
        assert recipe.code in ("repository", "package", "none")
        assert recipe.name not in recipes.builtin()
        if recipe.name != "madeleine":  # its note says that it was made with another setting of its tile encoder
            assert tile.fits(recipe.mpp)
            assert recipe.tile in tile.tile


def test_code_of_a_repository_is_not_run_unasked(tmp_path):
    with pytest.raises(HistillError, match="not run unasked"):
        slide_recipes.load("titan")
    with pytest.raises(HistillError, match="pinned to no commit"):
        slide_recipes.load("prism", allow_remote_code=True)
    with pytest.raises(HistillError, match="cannot be loaded from its repository"):
        slide_recipes.load("chief", allow_remote_code=True)
    with pytest.raises(HistillError, match="no slide encoder 'nothing'"):
        slide_recipes.load("nothing")


def test_code_of_a_repository_runs_where_it_is_allowed(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="needs histill[transformers]")
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tmp_path / "config.json").write_text(
        '{"model_type": "toy", "auto_map": {"AutoConfig": "toy.ToyConfig", "AutoModel": "toy.Toy"}}'
    )
    (tmp_path / "toy.py").write_text(
        "import torch\n"
        "from transformers import PretrainedConfig, PreTrainedModel\n"
        "class ToyConfig(PretrainedConfig):\n"
        "    model_type = 'toy'\n"
        "class Toy(PreTrainedModel):\n"
        "    config_class = ToyConfig\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.layer = torch.nn.Linear(2, 3)\n"
        "        self.post_init()\n"
    )
    import torch
    from safetensors.torch import save_file

    tensors = {"layer.weight": torch.ones(3, 2), "layer.bias": torch.zeros(3)}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(HistillError, match="not run unasked"):
        slide_recipes.load("prism", folder=tmp_path)
    model = slide_recipes.load("prism", folder=tmp_path, allow_remote_code=True)
    assert torch.equal(model.layer.weight, torch.ones(3, 2))
