from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from histill.encoders import recipes
from histill.encoders.build import build, create
from histill.encoders.states import load_into, read_state
from histill.encoders.weights import WeightFiles
from histill.errors import HistillError

RECIPE = replace(recipes.get("random-test-vit"), name="small", seed=None, hub="lab/small")


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks: threads would wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return create(RECIPE).state_dict()


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "teacher"])
def test_torch_files_bare_or_wrapped(tmp_path, state, wrapper, options):
    path = tmp_path / "weights.pt"
    torch.save({wrapper: state, "epoch": torch.tensor(3)} if wrapper else state, path, **options)
    model = create(RECIPE)
    load_into(model, RECIPE, path)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_half_precision_files_become_single(tmp_path, state):
    from safetensors.torch import save_file

    save_file({key: value.half() for key, value in state.items()}, tmp_path / "w.safetensors")
    model = create(RECIPE)
    load_into(model, RECIPE, tmp_path / "w.safetensors")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_keys_that_do_not_fit_are_named(tmp_path, state):
    def failed(changed: dict) -> str:
        torch.save(changed, tmp_path / "w.pt")
        model = create(RECIPE)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(HistillError, match="does not hold the weights of encoder 'small'") as caught:
            load_into(model, RECIPE, tmp_path / "w.pt")
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "half loaded"
        return caught.value.message

    assert "missing: cls_token" in failed({key: value for key, value in state.items() if key != "cls_token"})
    assert "unexpected: a, b, c, d and 1 more" in failed(state | dict.fromkeys("abcde", torch.zeros(1)))
    assert "of another shape: cls_token (1, 1, 32) for (1, 1, 64)" in failed(
        state | {"cls_token": torch.zeros(1, 1, 32)}
    )
    torch.save(state | {"head.weight": torch.zeros(2, 64)}, tmp_path / "w.pt")
    load_into(create(RECIPE), replace(RECIPE, ignore=("^head[.]",)), tmp_path / "w.pt")


class Evil:
    """Runs code when it is unpickled."""

    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


def test_a_file_that_would_run_code_is_not_opened(tmp_path):
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pt", "evil.bin"):
        with pytest.raises(HistillError, match=f"{name}"):
            read_state(tmp_path / name)
    assert not Evil.ran


@pytest.mark.parametrize(
    ("name", "content"), [("w.safetensors", b"not tensors"), ("w.pt", b""), ("w.bin", b"<html>sign in</html>")]
)
def test_files_that_are_no_weights_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HistillError, match=name):
        read_state(tmp_path / name)


def test_a_file_without_tensors_and_no_file(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(HistillError, match="no table of tensors"):
        read_state(tmp_path / "w.pt")
    with pytest.raises(HistillError, match=r"none\.pt does not exist"):
        read_state(tmp_path / "none.pt")


def test_a_package_that_is_missing_names_how_to_get_it():
    recipe = replace(recipes.get("musk"), package="musk_that_nobody_has.modeling")
    assert recipes.missing_package(recipe) == ("musk_that_nobody_has", recipe.install)
    with pytest.raises(HistillError, match="needs the package musk_that_nobody_has") as caught:
        build(recipe, weights=WeightFiles.__new__(WeightFiles), device="cpu")
    assert caught.value.mend == recipe.install


def test_networks_that_a_package_registers(tmp_path, monkeypatch):
    """MUSK's way: importing the package registers an architecture, and the forward pass takes keyword arguments."""
    (tmp_path / "toy_musk").mkdir()
    (tmp_path / "toy_musk" / "__init__.py").touch()
    (tmp_path / "toy_musk" / "modeling.py").write_text(
        "import torch\n"
        "from timm.models import register_model\n"
        "class Toy(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.ones(3))\n"
        "    def forward(self, image, with_head=True, ms_aug=False):\n"
        "        assert not with_head\n"
        "        values = image.mean(dim=(2, 3)) * self.scale\n"
        "        return (torch.cat([values, values], dim=1) if ms_aug else values), None\n"
        "@register_model\n"
        "def toy_musk_large(pretrained=False, **_):\n"
        "    return Toy()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save({"scale": torch.tensor([1.0, 2.0, 4.0])}, tmp_path / "w.pt")
    recipe = replace(
        recipes.get("musk-multiscale"),
        package="toy_musk.modeling",
        architecture="toy_musk_large",
        forward={"with_head": False, "ms_aug": True},
        dim=6,
    )
    encoder = build(recipe, weights=WeightFiles(tmp_path, {"w.pt": ""}), device="cpu")
    white = torch.full((2, 384, 384, 3), 255, dtype=torch.uint8).numpy()
    assert encoder.encode(white, 0.5).tolist() == [[1, 2, 4, 1, 2, 4]] * 2


@pytest.mark.parametrize("name", ["ctranspath", "dinov3-s", "resnet50-imagenet-truncated"])
def test_a_network_with_its_weights_is_whole(name, tmp_path):
    """Built without drawing numbers, it gives what the plainly built one gives, with buffers that no file holds."""
    recipe = replace(recipes.get(name), layout="plain")
    if name == "dinov3-s":
        recipe = replace(recipe, arguments={**recipe.arguments, "depth": 2})
    torch.manual_seed(5)
    plain = create(recipe).eval()
    state = plain.state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.add_(torch.randn_like(value).abs() * 0.01)
    torch.save(state, tmp_path / "w.pt")
    encoder = build(recipe, weights=WeightFiles(tmp_path, {"w.pt": ""}), device="cpu")
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    from histill.encoders.network import pool, prepare

    with torch.no_grad():
        expected = pool(plain(prepare(pixels, recipe)), recipe)
    torch.testing.assert_close(encoder.forward(pixels), expected)
