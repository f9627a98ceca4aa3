import functools
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from histill.cohort.sheets import Slide
from histill.errors import HistillError
from histill.provenance import file_digest
from histill.slides import inspect, regions, segment, tissue_model, tissue_weights
from histill.slides.overview import read_overview
from histill.slides.readers import open_slide

DARK = (60, 40, 80)


@functools.cache
def sees_dark() -> dict[str, torch.Tensor]:
    """Weights of the whole architecture by which dark is tissue: one channel carries darkness, all others are 0."""
    model = tissue_weights.build()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.Conv2d):
            state[f"{name}.weight"].zero_()
    state["backbone.conv1.weight"][0, :, 3, 3] = -1 / 3
    for layer in range(1, 5):
        state[f"backbone.layer{layer}.0.downsample.0.weight"][0, 0] = 1
    state["classifier.0.convs.0.0.weight"][0, 0] = 1
    state["classifier.0.project.0.weight"][0, 0] = 1
    state["classifier.1.weight"][0, 0, 1, 1] = 1
    state["classifier.4.weight"][1, 0] = 50
    state["classifier.4.bias"][:] = torch.tensor([0.0, -40.0])  # makes up for what max pooling adds
    return state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """As Lightning writes it, with the auxiliary head that is not used."""
    path = tmp_path_factory.mktemp("weights") / "a.ckpt"
    state = {f"model.{key}": value for key, value in sees_dark().items()}
    torch.save({"state_dict": state | {"model.aux_classifier.4.bias": torch.zeros(21)}, "epoch": 3}, path)
    return path


def slide_with(ellipses, size, write_slide, path, mpp=(0.70, 0.73)):
    """Dark ellipses (centre and axes in µm) on glass; the truth at 8 µm per pixel. `size` in µm, whole pixels of 8."""
    picture = np.full((round(size[1] / mpp[1]), round(size[0] / mpp[0]), 3), 242, np.uint8)
    picture += np.random.default_rng(0).integers(0, 4, picture.shape, dtype=np.uint8)
    fine = np.zeros(size[::-1], np.uint8)
    for (x, y), (a, b) in ellipses:
        centre, axes = (round(x / mpp[0]), round(y / mpp[1])), (round(a / mpp[0]), round(b / mpp[1]))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, DARK, -1)
        cv2.ellipse(fine, (x, y), (a, b), 0, 0, 360, 255, -1)
    truth = cv2.resize(fine, (size[0] // 8, size[1] // 8), interpolation=cv2.INTER_AREA) > 127
    return write_slide(path, picture, mpp=mpp, levels=2), truth


def within_a_pixel(mask, truth):
    kernel = np.ones((3, 3), np.uint8)
    outer, inner = cv2.dilate(truth.view(np.uint8), kernel) > 0, cv2.erode(truth.view(np.uint8), kernel) > 0
    return not (mask & ~outer).any() and not (inner & ~mask).any()


class Darkness(torch.nn.Module):
    """A stand-in that marks dark pixels, and answers nonsense within 40 px of a tile's frame."""

    def forward(self, pixels):
        score = -pixels.mean(1, keepdim=True) * 20
        score[..., :40, :] = score[..., -40:, :] = 20
        score[..., :40] = score[..., -40:] = 20
        return {"out": torch.cat([-score, score], dim=1)}


def find(path, options, mpp=(0.70, 0.73)):
    weights = tissue_weights.Weights(path, "a test", "0")
    with open_slide(path) as reader:
        return tissue_model.find_tissue(reader, read_overview(reader, mpp, options["mpp"]), options, weights)


@pytest.fixture
def options(config):
    return config["tissue"] | {"method": "deeplabv3", "device": "cpu"}


def test_the_whole_architecture_marks_an_ellipse(checkpoint, write_slide, config, tmp_path):
    """From the config to the receipt, in the child process of the slide."""
    path, truth = slide_with([((190, 200), (120, 90))], (384, 384), write_slide, tmp_path / "a.tiff")
    config["tissue"] |= {"method": "deeplabv3", "weights": str(checkpoint), "device": "cpu"}
    config["slides"]["allow_upsampling"] = True
    slides = [Slide("s", "p", str(path))]
    inspect.run(slides, config=config, results=tmp_path)
    (receipt,) = segment.run(slides, config=config, results=tmp_path)
    assert receipt.state == "ok", receipt.reason
    with open_slide(path) as reader:
        dimensions = reader.dimensions
    outline = regions.read(tmp_path / "slides" / "s" / "tissue.geojson", dimensions)
    mask = regions.to_mask(outline.polygons, dimensions, truth.shape) > regions.QUARTERS / 2
    assert within_a_pixel(mask, truth)
    assert receipt.info["method"] == "deeplabv3"
    assert receipt.inputs["weights"] == receipt.info["thresholds"]["weights"] == file_digest(checkpoint)


def test_tiles_join_without_seams(write_slide, options, tmp_path, monkeypatch):
    monkeypatch.setattr(tissue_model, "load_model", lambda weights: Darkness())
    ellipses = [((900, 600), (700, 450)), ((1700, 1000), (60, 300)), ((30, 1100), (100, 60))]
    path, truth = slide_with(ellipses, (1904, 1304), write_slide, tmp_path / "a.tiff")
    found = find(path, options)
    assert within_a_pixel(found.mask, truth)
    assert found.facts["tiles_read"] <= 20
    coarse = find(path, options | {"mpp": 16.0}).mask
    expected = cv2.resize(truth.view(np.uint8) * 255, coarse.shape[::-1], interpolation=cv2.INTER_AREA) > 127
    assert within_a_pixel(coarse, expected)


def test_plain_glass_and_black_are_not_read(write_slide, options, tmp_path, monkeypatch):
    monkeypatch.setattr(tissue_model, "load_model", lambda weights: Darkness())
    path, _ = slide_with([((300, 300), (200, 150))], (2000, 1600), write_slide, tmp_path / "a.tiff")
    found = find(path, options)
    assert found.facts["tiles_read"] <= 4
    assert found.mask.sum() * 64 == pytest.approx(np.pi * 200 * 150, rel=0.03)


def test_small_pieces_and_holes_are_filtered_by_area(write_slide, options, tmp_path, monkeypatch):
    monkeypatch.setattr(tissue_model, "load_model", lambda weights: Darkness())
    path, _ = slide_with(
        [((300, 300), (200, 150)), ((640, 640), (40, 40))], (800, 800), write_slide, tmp_path / "a.tiff"
    )
    assert find(path, options | {"min_area_mm2": 0.0}).mask[80, 80]
    assert not find(path, options | {"min_area_mm2": 0.02}).mask[80, 80]


@pytest.mark.parametrize("mpp", [2.0, 3.0, 7.3, 8.0, 32.0])
def test_cores_cover_the_overview_once(mpp):
    covered = np.zeros((211, 307), int)
    sides = set()
    for box in tissue_model._boxes(307, 211, mpp):
        left, top, right, bottom = box.core
        covered[top:bottom, left:right] += 1
        sides.add((box.read[2] - box.read[0], box.read[3] - box.read[1]))
        assert box.read[0] < left < right < box.read[2]
        assert box.read[1] < top < bottom < box.read[3]
    assert (covered == 1).all()
    assert sides == {(int(512 / mpp), int(512 / mpp))}


def test_weights_in_every_form(checkpoint, options, tmp_path):
    state = sees_dark()
    plain, safe, half = tmp_path / "a.pt", tmp_path / "a.safetensors", tmp_path / "half.pt"
    torch.save(state, plain)
    save_file(state, safe)
    old = {key: value.half() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save({f"model.{key}": value for key, value in old.items()}, half)
    for path in (checkpoint, plain, safe, half):
        weights = tissue_weights.prepare(options | {"weights": str(path)})
        loaded = tissue_weights.load_model(weights).state_dict()
        assert weights.digest == file_digest(path)
        assert all(torch.allclose(loaded[key], value, atol=1e-3) for key, value in state.items()), path


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def broken(kind, path, state):
    if kind == "missing":
        torch.save({key: value for key, value in state.items() if "layer4.2" not in key}, path)
    elif kind == "unexpected":
        torch.save(state | {"head.weight": torch.zeros(1)}, path)
    elif kind == "shape":
        torch.save(state | {"classifier.4.weight": torch.zeros(21, 256, 1, 1)}, path)
    elif kind == "no state dict":
        torch.save([1, 2], path)
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1")
    elif kind == "harmful":
        torch.save({"state_dict": Harmful()}, path)
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "missing: backbone.layer4.2.bn1.bias"),
        ("unexpected", "1 unexpected: head.weight"),
        ("shape", r"classifier.4.weight \[21, 256, 1, 1\] instead of \[2, 256, 1, 1\]"),
        ("no state dict", "holds no state dict"),
        ("text", "cannot be read safely"),
        ("harmful", "cannot be read safely"),
        ("folder", "is no file"),
        ("absent", "is no file"),
    ],
)
def test_weights_that_do_not_serve_stop_the_stage_once(kind, reason, config, tmp_path, capfd):
    path = tmp_path / "mine.pt"
    broken(kind, path, sees_dark())
    config["tissue"] |= {"method": "deeplabv3", "weights": str(path)}
    with pytest.raises(HistillError, match=reason) as caught:
        segment.run([], config=config, results=tmp_path)
    assert "mine.pt" in caught.value.message
    assert "tissue.weights" in caught.value.mend
    assert "executed" not in capfd.readouterr().out


def test_a_damaged_safetensors_file_is_refused(config, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{not json")
    with pytest.raises(HistillError, match="cannot be read safely"):
        tissue_weights.prepare(config["tissue"] | {"weights": str(path)})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda: errors.GatedRepoError("gated", response=MagicMock()), "access has to be asked for"),
        (lambda: errors.LocalEntryNotFoundError("offline"), "cannot be reached"),
        (lambda: errors.EntryNotFoundError("404"), "no such file"),
        (lambda: ConnectionError("no route"), "no route"),
    ],
)
def test_a_hub_that_does_not_answer_stops_the_stage_once(error, reason, config, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error()

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    config["tissue"]["method"] = "deeplabv3"
    with pytest.raises(HistillError, match=reason) as caught:
        segment.run([], config=config, results=tmp_path)
    assert "hest-tissue-seg/deeplabv3_seg_v4.ckpt" in caught.value.message
    assert "tissue.weights" in caught.value.mend


def test_weights_of_the_hub_are_pinned(config, checkpoint, monkeypatch):
    asked = []

    def download(*names, **options):
        asked.append((*names, options))
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    weights = tissue_weights.prepare(config["tissue"])
    assert asked == [("MahmoodLab/hest-tissue-seg", "deeplabv3_seg_v4.ckpt", {"revision": "main"})]
    assert weights.path == checkpoint
    assert weights.source == "MahmoodLab/hest-tissue-seg/deeplabv3_seg_v4.ckpt@main"


def test_answers_that_are_not_finite_are_no_mask(write_slide, options, tmp_path, monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, pixels):
            return {"out": torch.full((len(pixels), 2, *pixels.shape[2:]), float("nan"))}

    monkeypatch.setattr(tissue_model, "load_model", lambda weights: Broken())
    path, _ = slide_with([((190, 200), (120, 90))], (384, 384), write_slide, tmp_path / "a.tiff")
    with pytest.raises(HistillError, match="not finite"):
        find(path, options)


def test_a_device_that_is_not_there_stops_the_stage_once(checkpoint, config, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config["tissue"] |= {"method": "deeplabv3", "weights": str(checkpoint), "device": "cuda"}
    with pytest.raises(HistillError, match="torch sees no GPU"):
        segment.run([], config=config, results=tmp_path)
