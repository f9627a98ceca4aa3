"""The slides of the synthetic cohort, as readers see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from histill.demo.design import DemoSlide, design, slide_path
from histill.demo.layout import layout
from histill.demo.nuclei import tumor_bank
from histill.demo.painter import paint

SLIDE = DemoSlide("SYN-000-1", "SYN-000", "Northfield", 1100, 1024, 0.0, 0.0, None, False, True, False, (7, 5, 0, 1))


def _slides(small: dict) -> list[DemoSlide]:
    return [slide for patient in design(small) for slide in patient.slides]


def _open(cohort: Path, slide: DemoSlide) -> openslide.OpenSlide:
    return openslide.OpenSlide(slide_path(cohort, slide.slide_id))


def test_openslide_takes_them_for_aperio_slides_with_resolution(cohort, small):
    for slide in _slides(small):
        if slide.corrupt or not slide.resolution_known:
            continue
        with _open(cohort, slide) as opened:
            properties = opened.properties
            assert properties["openslide.vendor"] == "aperio"
            assert float(properties["openslide.mpp-x"]) == float(properties["openslide.mpp-y"]) == 0.5
            assert properties["openslide.objective-power"] == "20"
            assert "synthetic" in properties["tiff.ImageDescription"]
            assert opened.dimensions == (slide.width, slide.height)
            assert [round(downsample) for downsample in opened.level_downsamples] == [1, 4, 16]
            assert "thumbnail" in opened.associated_images


def test_levels_show_the_same_picture(cohort, small):
    with _open(cohort, _slides(small)[0]) as opened:
        full = np.asarray(opened.read_region((0, 0), 0, opened.dimensions).convert("RGB"), float)
        low = np.asarray(opened.read_region((0, 0), 1, opened.level_dimensions[1]).convert("RGB"), float)
    height, width = low.shape[0], low.shape[1]
    averaged = full[: height * 4, : width * 4].reshape(height, 4, width, 4, 3).mean((1, 3))
    assert np.abs(averaged - low).mean() < 4


def test_one_slide_says_nothing_about_its_resolution(cohort, small):
    slide = next(slide for slide in _slides(small) if not slide.resolution_known)
    with _open(cohort, slide) as opened:
        assert opened.properties["openslide.vendor"] == "aperio"
        for key in ("openslide.mpp-x", "openslide.objective-power", "aperio.MPP", "aperio.AppMag", "tiff.XResolution"):
            assert key not in opened.properties
    with tifffile.TiffFile(slide_path(cohort, slide.slide_id)) as tiff:
        assert len(tiff.pages) == 4
        for page in tiff.pages:
            assert not {282, 283, 296} & {tag.code for tag in page.tags}
            assert "MPP" not in page.description
            assert "AppMag" not in page.description


def test_the_corrupt_slide_cannot_be_read(cohort, small):
    slide = next(slide for slide in _slides(small) if slide.corrupt)
    with pytest.raises(openslide.OpenSlideError), _open(cohort, slide) as opened:
        opened.read_region((0, 0), 0, opened.dimensions)
    with (
        tifffile.TiffFile(slide_path(cohort, slide.slide_id)) as tiff,
        pytest.raises(RuntimeError, match=r"Empty input|JPEG"),
    ):
        tiff.pages[0].asarray()


def test_files_hold_no_time(cohort, small):
    with tifffile.TiffFile(slide_path(cohort, _slides(small)[0].slide_id)) as tiff:
        assert all(306 not in page.tags for page in tiff.pages)


def test_tumor_factor_shows_in_nuclei():
    low, high = paint(replace(SLIDE, tumor=-1.5)), paint(replace(SLIDE, tumor=1.5))
    assert _nuclear_share(high) > 1.3 * _nuclear_share(low)
    sizes = [[(sprite > 0).sum() for sprite in tumor_bank(np.random.default_rng(0), tumor)] for tumor in (0.1, 0.9)]
    assert np.mean(sizes[1]) > 1.25 * np.mean(sizes[0])
    assert np.std(sizes[1]) > 1.5 * np.std(sizes[0])


def test_microenvironment_factor_shows_in_the_architecture():
    low, high = (layout(np.random.default_rng(3), 3000, 3000, rank) for rank in (0.1, 0.9))
    assert (high.band > 127).mean() > 2 * (low.band > 127).mean()
    assert len(high.clusters) > len(low.clusters)


def test_pixels_show_glass_and_tissue():
    image = paint(SLIDE)
    assert image.shape == (1024, 1100, 3)
    assert image.dtype == np.uint8
    saturation = image.max(2).astype(int) - image.min(2)
    assert 0.25 < (saturation > 15).mean() < 0.8
    assert (saturation[[0, -1]] < 8).all()


def test_ink_and_blur_change_a_part_of_the_slide():
    plain = paint(SLIDE).astype(int)
    inked = paint(replace(SLIDE, pen="green")).astype(int)
    changed = np.abs(plain - inked).max(2) > 20
    assert 0.01 < changed.mean() < 0.3
    assert (inked[changed][:, 1] > inked[changed][:, 0]).mean() > 0.9
    blurred = paint(replace(SLIDE, blurred=True)).astype(int)
    changed = np.abs(plain - blurred).max(2) > 20
    assert 0.005 < changed.mean() < 0.3


def _nuclear_share(image: np.ndarray) -> float:
    tissue = image.max(2).astype(int) - image.min(2) > 15
    return float((image[..., 0][tissue] < 150).mean())
