"""A pass gives every encoder what it would be given alone, and a tile what it would get in any other batch."""

from __future__ import annotations

import subprocess
import sys
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from histill.encoders import recipes
from histill.encoders.build import build, create
from histill.encoders.colour_texture import ColourTexture
from histill.encoders.lanes import cut_in_torch
from histill.encoders.network import NetworkEncoder
from histill.encoders.passes import Pass, averages, quarters
from histill.errors import HistillError

SIZE = 224
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def noise(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 2 * size, 2 * size, 3), dtype=np.uint8)


def network(architecture: str, dim: int, *, side: int = SIZE, device: str = "cpu", **fields) -> NetworkEncoder:
    """A timm network with fixed random weights."""
    recipe = recipes.make(
        architecture,
        {
            "builder": "timm",
            "architecture": architecture,
            "arguments": {"num_classes": 0},
            "seed": 3,
            "dim": dim,
            "input": side,
            "resize": side,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "mpp": [0.2, 2.2],
            "licence": "none",
            "source": "a test",
            **fields,
        },
    )
    return NetworkEncoder(recipe, create(recipe), device=device)


def small(**options) -> NetworkEncoder:
    return network("test_vit", 64, side=160, **options)


def vectors(encoder, fields: np.ndarray, count: int | None = None) -> dict[str, np.ndarray]:
    made = Pass({"it": encoder}, size=fields.shape[1] // 2, fields=len(fields))
    return made.submit(fields, len(fields) if count is None else count).result()["it"]


class Means(torch.nn.Module):
    """Mean of each channel; above `most` tiles memory runs out, by `error()`, with a tensor still in its hands."""

    def __init__(self, most: int, error):
        super().__init__()
        self.most, self.error = most, error
        self.sizes: list[int] = []
        self.held = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.held is None or self.held() is None, "memory of the forward pass that failed is still held"
        self.sizes.append(len(x))
        activations = x * 2
        if len(x) > self.most:
            self.held = weakref.ref(activations)
            self.error()
        return activations.mean((2, 3)) / 2


def means(most: int = 10**6, error=None) -> NetworkEncoder:
    recipe = replace(small().recipe, dim=3, resize=8, input=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return NetworkEncoder(recipe, Means(most, error), device="cpu")


def raises(kind: type[Exception], *message: str):
    def now():
        raise kind(*message)

    return now


@pytest.mark.parametrize("size", [1, 8, 31, 224])
def test_tiles_of_a_field_are_cut_as_cv2_does(size):
    fields = noise(3, size)
    fields[0] = np.indices((2 * size, 2 * size)).sum(0)[..., None] % 2 * 255  # means of .5
    fine = np.stack([field[y : y + size, x : x + size] for field in fields for y in (0, size) for x in (0, size)])
    coarse = np.stack([cv2.resize(field, (size, size), interpolation=cv2.INTER_AREA) for field in fields])
    np.testing.assert_array_equal(quarters(fields), fine)
    np.testing.assert_array_equal(averages(fields), coarse)
    sums = fields.reshape(3, size, 2, size, 2, 3).astype(int).sum((2, 4))
    np.testing.assert_array_equal(coarse, (sums + 2) >> 2)

    tiles = np.zeros((3, 5, size, size, 3), np.uint8)
    quarters(fields, out=tiles[:, :4])
    averages(fields, out=tiles[:, 4])
    np.testing.assert_array_equal(tiles[:, :4].reshape(fine.shape), fine)
    np.testing.assert_array_equal(tiles[:, 4], coarse)
    in_torch = torch.zeros(tiles.shape, dtype=torch.uint8)
    cut_in_torch(torch.from_numpy(fields), in_torch)
    np.testing.assert_array_equal(in_torch.numpy(), tiles)


@pytest.mark.parametrize(
    ("architecture", "dim"), [("vit_tiny_patch16_224", 192), ("mobilenetv3_small_050", 1024), ("resnet18", 512)]
)
def test_a_tile_gets_the_same_vector_to_the_bit_in_any_place_and_company(architecture, dim):
    encoder = network(architecture, dim)
    fields, order = noise(4), [2, 0, 3, 1]
    whole = vectors(encoder, fields)
    assert np.abs(np.diff(whole["20x"], axis=0)).max() > 1e-4, "all tiles look the same to the network"
    moved = vectors(encoder, fields[order])
    np.testing.assert_array_equal(moved["10x"], whole["10x"][order])
    np.testing.assert_array_equal(moved["20x"].reshape(4, 4, dim), whole["20x"].reshape(4, 4, dim)[order])
    company = noise(8, seed=9)  # a larger batch as well
    company[6] = fields[1]
    other = vectors(encoder, company)
    np.testing.assert_array_equal(other["10x"][6], whole["10x"][1])
    np.testing.assert_array_equal(other["20x"][24:28], whole["20x"][4:8])


@pytest.mark.parametrize("fields", [1, 3, 5, 7])
def test_any_number_of_fields(fields):
    """Batches that do not divide into the tiles of one forward pass."""
    encoder, batch = means(), noise(fields, 8)
    found = vectors(encoder, batch)
    np.testing.assert_allclose(found["20x"], quarters(batch).mean((1, 2)) / 255, atol=1e-6)
    np.testing.assert_allclose(found["10x"], averages(batch).mean((1, 2)) / 255, atol=1e-6)
    assert len(set(encoder.model.sizes)) == 1, "tiles went through in different numbers at a time"


def test_several_encoders_in_one_pass():
    encoders = {"texture": ColourTexture(), "vit": small(), "conv": network("mobilenetv3_small_050", 1024)}
    fields = noise(3)
    made = Pass(encoders, size=SIZE, fields=3)
    assert made.busy_seconds == 0
    found = made.submit(fields, 2).result()
    assert list(found) == list(encoders)
    for name, encoder in encoders.items():
        for magnification, tiles, mpp in (("10x", averages(fields[:2]), 1.0), ("20x", quarters(fields[:2]), 0.5)):
            mine = found[name][magnification]
            assert mine.shape == (len(tiles), encoder.dim)
            assert mine.dtype == np.float32
            assert mine.flags.c_contiguous
            np.testing.assert_allclose(mine, encoder.encode(tiles, mpp), atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(found["texture"]["10x"], ColourTexture().encode(averages(fields[:2]), 1.0))
    assert made.busy_seconds > 0
    assert made.warnings == []


def test_batches_may_be_part_full_and_their_array_is_free_at_once():
    encoder, fields = small(), noise(8)
    whole = vectors(encoder, fields)
    for count in (0, 1, 3, 8):
        batch = fields.copy()
        batch[count:] = 77  # of an earlier batch
        made = Pass({"it": encoder}, size=SIZE, fields=8)
        encoded = made.submit(batch, count)
        batch[:] = 0
        for _ in range(2):
            found = encoded.result()["it"]
            np.testing.assert_array_equal(found["10x"], whole["10x"][:count])
            np.testing.assert_array_equal(found["20x"], whole["20x"][: 4 * count])
    assert vectors(ColourTexture(), noise(1, 8), 0)["20x"].shape == (0, 88)


def test_an_almost_empty_batch_costs_what_it_holds():
    encoder = means()
    vectors(encoder, noise(16, 8), 2)
    assert encoder.model.sizes == [20]


def test_results_of_a_batch_stay_when_the_next_one_is_encoded():
    made = Pass({"vit": small(), "texture": ColourTexture()}, size=64, fields=2)
    first = made.submit(noise(2, 64), 2)
    second = made.submit(noise(2, 64, seed=1), 2)
    again = made.submit(noise(2, 64), 2).result()
    for name in ("vit", "texture"):
        np.testing.assert_array_equal(first.result()[name]["20x"], again[name]["20x"])
        assert not np.array_equal(second.result()[name]["20x"], again[name]["20x"])


@pytest.mark.parametrize(
    "error",
    [
        raises(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
        raises(RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        raises(MemoryError),
        lambda: torch.empty(1 << 55),
    ],
    ids=["device", "cublas", "numpy", "host"],
)
def test_when_memory_runs_out_fewer_tiles_go_through_at_a_time(error):
    encoder, fields = means(6, error), noise(8, 8)
    made = Pass({"tight": encoder, "roomy": means()}, size=8, fields=8)
    found = made.submit(fields, 8).result()
    for name in ("tight", "roomy"):
        np.testing.assert_allclose(found[name]["20x"], quarters(fields).mean((1, 2)) / 255, atol=1e-6)
        np.testing.assert_allclose(found[name]["10x"], averages(fields).mean((1, 2)) / 255, atol=1e-6)
    assert encoder.model.sizes == [20, 10, *[5] * 8]
    assert made.warnings == [
        "encoder 'tight': memory of cpu ran out with 20 tiles at a time; it goes on with 10 "
        "(a smaller features.batch_size avoids this)",
        "encoder 'tight': memory of cpu ran out with 10 tiles at a time; it goes on with 5 "
        "(a smaller features.batch_size avoids this)",
    ]
    made.submit(fields, 8)
    assert encoder.model.sizes == [20, 10, *[5] * 16]
    assert len(made.warnings) == 2


def test_memory_that_runs_out_half_way_through_a_batch_keeps_what_is_done():
    encoder, fields = means(20, raises(torch.OutOfMemoryError, "out")), noise(8, 8)
    made = Pass({"it": encoder}, size=8, fields=8)
    forward = encoder.model.forward

    def later(x: torch.Tensor) -> torch.Tensor:
        encoder.model.most = 20 if not encoder.model.sizes else 10  # another job takes its share meanwhile
        return forward(x)

    encoder.model.forward = later
    found = made.submit(fields, 8).result()["it"]
    np.testing.assert_allclose(found["20x"], quarters(fields).mean((1, 2)) / 255, atol=1e-6)
    assert encoder.model.sizes == [20, 20, 10, 10]


def test_no_memory_for_a_single_tile():
    made = Pass({"it": means(0, raises(torch.OutOfMemoryError, "out"))}, size=8, fields=1)
    with pytest.raises(HistillError, match="'it': memory of cpu runs out with a single tile") as caught:
        made.submit(noise(1, 8), 1)
    assert "features.batch_size" in caught.value.mend
    with pytest.raises(HistillError, match="no memory on cpu for a batch of 5000000 tiles"):
        Pass({"it": means()}, size=100_000, fields=1_000_000)


def test_other_errors_of_a_network_are_not_taken_for_a_lack_of_memory():
    made = Pass({"it": means(0, raises(RuntimeError, "mat1 and mat2 shapes cannot be multiplied"))}, size=8, fields=1)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        made.submit(noise(1, 8), 1)
    assert made.warnings == []


def test_read_only_and_strided_fields_are_taken():
    encoders = {"vit": small(), "texture": ColourTexture()}
    fields = noise(2, 128)[:, ::2, ::2]
    fields.flags.writeable = False
    made = Pass(encoders, size=64, fields=2)
    found, expected = made.submit(fields, 2).result(), made.submit(np.array(fields), 2).result()
    for name in encoders:
        np.testing.assert_array_equal(found[name]["20x"], expected[name]["20x"])
        np.testing.assert_array_equal(found[name]["10x"], expected[name]["10x"])


def test_what_is_no_batch_of_the_pass_is_refused():
    made = Pass({"texture": ColourTexture()}, size=8, fields=2)
    for fields in (noise(1, 8), noise(2, 9), noise(2, 8)[..., :2], noise(2, 8).astype(np.float32), noise(2, 8)[0]):
        with pytest.raises(ValueError, match="this pass takes uint8"):
            made.submit(fields, 1)
    for count in (-1, 3):
        with pytest.raises(ValueError, match=f"{count} fields in a batch of 2"):
            made.submit(noise(2, 8), count)
    with pytest.raises(ValueError, match="a pass of 0 fields"):
        Pass({}, size=8, fields=0)


def test_an_encoder_that_gives_something_else_is_named():
    class Odd(ColourTexture):
        dim = 5

    with pytest.raises(HistillError, match=r"encoder 'it' gave \(4, 88\) for 4 tiles, its recipe says 5"):
        vectors(Odd(), noise(1, 8))


def test_an_encoder_may_write_to_its_tiles():
    class Rude(ColourTexture):
        def encode(self, tiles, mpp):
            tiles[:] = 0
            return super().encode(tiles, mpp)

    fields = noise(1, 32)
    found = Pass({"rude": Rude(), "kind": ColourTexture()}, size=32, fields=1).submit(fields, 1).result()
    np.testing.assert_array_equal(found["kind"]["20x"], ColourTexture().encode(quarters(fields), 0.5))


def test_a_pass_without_networks_does_not_load_torch():
    code = """
import sys, numpy as np
from histill.encoders.colour_texture import ColourTexture
from histill.encoders.passes import Pass
Pass({"it": ColourTexture()}, size=16, fields=1).submit(np.zeros((1, 32, 32, 3), np.uint8), 1).result()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_gpu
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-3), ("float16", 0.02), ("bfloat16", 0.1)], ids=lambda value: str(value)
)
def test_a_gpu_gives_what_the_cpu_gives(precision, tolerance):
    """Within a share of the vectors' deviation; the tiles themselves are equal to the bit."""
    names = {"vit_small_patch16_224": 384, "mobilenetv3_small_050": 1024}
    fields = [noise(4, 256, seed) for seed in range(6)]
    found = {}
    for device in ("cpu", "cuda"):
        encoders = {name: network(name, dim, device=device, precision=precision) for name, dim in names.items()}
        made = Pass(encoders, size=256, fields=4)
        batches = []
        for number, batch in enumerate(fields):  # more than there are staging buffers, and none waited for
            reused = batch.copy()
            batches.append(made.submit(reused, 1 + number % 4))
            reused[:] = 0
        found[device] = [encoded.result() for encoded in batches]
        assert made.busy_seconds > 0
    for number, (ours, theirs) in enumerate(zip(found["cuda"], found["cpu"], strict=True)):
        for name in names:
            for magnification in ("10x", "20x"):
                mine, expected = ours[name][magnification], theirs[name][magnification]
                assert mine.shape == expected.shape, number
                assert np.abs(mine - expected).max() <= tolerance * expected.std(), (number, name)


@needs_gpu
def test_a_gpu_cuts_tiles_to_the_bit():
    fields, tiles = noise(3, 31), torch.zeros(3, 5, 31, 31, 3, dtype=torch.uint8, device="cuda")
    cut_in_torch(torch.from_numpy(fields).cuda(), tiles)
    np.testing.assert_array_equal(tiles[:, :4].cpu().numpy().reshape(12, 31, 31, 3), quarters(fields))
    np.testing.assert_array_equal(tiles[:, 4].cpu().numpy(), averages(fields))


@needs_gpu
def test_a_gpu_and_the_cpu_in_one_pass():
    encoders = {"texture": ColourTexture(), "here": small(), "there": small(device="cuda")}
    found = Pass(encoders, size=160, fields=2).submit(noise(2, 160), 2).result()
    assert list(found) == list(encoders)
    np.testing.assert_allclose(found["there"]["20x"], found["here"]["20x"], atol=1e-3)


@needs_gpu
def test_a_gpu_without_memory_is_given_fewer_tiles():
    class Greedy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            _, total = torch.cuda.mem_get_info()
            torch.empty(len(x), total // 4, dtype=torch.uint8, device=x.device)
            return x.mean((2, 3))

    fields = noise(1, 8)
    made = Pass({"it": NetworkEncoder(means().recipe, Greedy(), device="cuda")}, size=8, fields=1)
    found = made.submit(fields, 1).result()["it"]
    np.testing.assert_allclose(found["20x"], quarters(fields).mean((1, 2)) / 255, atol=1e-5)
    assert "ran out with 5 tiles at a time; it goes on with 2" in made.warnings[0]


def test_building_marks_networks_alone():
    assert build(recipes.get("random-test-vit"), device="cpu").shares_tiles
    assert not hasattr(ColourTexture(), "shares_tiles")
