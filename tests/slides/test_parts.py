"""Slides of several files: which files they are, and one fingerprint over them."""

import os
import shutil
import struct

import numpy as np
import pytest

from histill.cohort.sheets import Slide
from histill.errors import SlideError
from histill.provenance import fingerprint
from histill.slides import inspect
from histill.slides.dicom import series_uid
from histill.slides.parts import parts, slide_fingerprint


@pytest.fixture
def mirax(tmp_path):
    (tmp_path / "case").mkdir()
    (tmp_path / "case.mrxs").write_bytes(b"\xff\xd8 a preview")
    (tmp_path / "case" / "Slidedat.ini").write_text(
        "\ufeff[GENERAL]\r\nSLIDE_ID = A\r\n[HIERARCHICAL]\r\nINDEXFILE = Index.dat\r\n"
        "[DATAFILE]\r\nFILE_COUNT = 2\r\nFILE_0 = Data0000.dat\r\nFILE_1=Data0001.dat \r\n",
        encoding="utf-8",
    )
    for name in ("Index.dat", "Data0000.dat", "Data0001.dat"):
        (tmp_path / "case" / name).write_bytes(name.encode() * 10)
    return tmp_path / "case.mrxs"


@pytest.fixture
def vms(tmp_path):
    (tmp_path / "slide.vms").write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=a.jpg\nImageFile(1,0)=a(1,0).jpg\nMapFile=a_map2.jpg\n"
        "OptimisationFile=a.opt\nMacroImage=a_macro.jpg\nAuthCode=\n; ImageFile(9,9)=gone.jpg\n"
    )
    for name in ("a.jpg", "a(1,0).jpg", "a_map2.jpg", "a_macro.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path / "slide.vms"


def element(group, number, kind, value, *, explicit=True):
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH", group, number)
    if not explicit:
        return head + struct.pack("<I", len(value)) + value
    if kind in (b"OB", b"SQ", b"UN", b"UT"):
        return head + kind + struct.pack("<2xI", len(value)) + value
    return head + kind + struct.pack("<H", len(value)) + value


def endless(group, number, items, *, explicit=True):
    """A sequence of undefined length, its items of undefined length as well."""
    head = struct.pack("<HH", group, number) + (b"SQ\0\0" if explicit else b"") + b"\xff" * 4
    body = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        for item in items
    )
    return head + body + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def dicom(uid: bytes, syntax=b"1.2.840.10008.1.2.1"):
    explicit = syntax != b"1.2.840.10008.1.2"
    inner = element(0x0020, 0x000E, b"UI", b"9.9.9", explicit=explicit)  # of another series, referred to
    nested = endless(
        0x0008, 0x1199, [inner, inner + endless(0x0008, 0x1200, [inner], explicit=explicit)], explicit=explicit
    )
    return (
        bytes(128)
        + b"DICM"
        + element(0x0002, 0x0001, b"OB", b"\0\1")
        + element(0x0002, 0x0010, b"UI", syntax)
        + element(0x0008, 0x0060, b"CS", b"SM", explicit=explicit)
        + endless(0x0008, 0x1115, [nested], explicit=explicit)
        + element(0x0020, 0x000D, b"UI", b"1.1", explicit=explicit)
        + element(0x0020, 0x000E, b"UI", uid, explicit=explicit)
        + element(0x7FE0, 0x0010, b"OB", bytes(100), explicit=explicit)
    )


@pytest.fixture
def series(tmp_path):
    for name, uid in (("b.dcm", b"1.2.3"), ("a.dcm", b"1.2.3"), ("no_suffix", b"1.2.3"), ("other.dcm", b"1.2.4")):
        (tmp_path / name).write_bytes(dicom(uid))
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "folder.dcm").mkdir()
    return tmp_path / "b.dcm"


def names(path):
    return [part.name for part in parts(path)]


def test_what_belongs_to_a_slide(mirax, vms, series):
    assert names(mirax) == ["case.mrxs", "Slidedat.ini", "Index.dat", "Data0000.dat", "Data0001.dat"]
    assert names(vms) == ["slide.vms", "a.jpg", "a(1,0).jpg", "a_map2.jpg", "a_macro.jpg"]
    assert names(series) == ["b.dcm", "a.dcm", "no_suffix"]


def test_a_single_file_has_the_fingerprint_of_that_file(tmp_path):
    for name, content in (("a.svs", b"II*\0 whatever"), ("one.dcm", dicom(b"1.2.9")), ("big.tif", os.urandom(1 << 20))):
        (tmp_path / name).write_bytes(content)
        assert slide_fingerprint(tmp_path / name) == fingerprint(tmp_path / name)


@pytest.mark.parametrize("kind", ["mirax", "vms", "series"])
def test_every_part_counts_and_the_place_does_not(kind, request, tmp_path_factory):
    path = request.getfixturevalue(kind)
    first = slide_fingerprint(path)
    moved = tmp_path_factory.mktemp("moved") / "there"
    shutil.copytree(path.parent, moved)
    assert slide_fingerprint(moved / path.name) == first
    for part in parts(path):
        content = part.read_bytes()
        part.write_bytes(content[:-1] + b"!" if part.suffix not in (".ini", ".vms") else content + b"\nX=1\n")
        assert slide_fingerprint(path) != first, part
        part.write_bytes(content)
    assert slide_fingerprint(path) == first
    (path.parent / "unrelated.txt").write_text("new")
    assert slide_fingerprint(path) == first


def test_any_file_of_a_series_stands_for_it(series):
    assert slide_fingerprint(series) == slide_fingerprint(series.with_name("a.dcm"))
    assert slide_fingerprint(series) != slide_fingerprint(series.with_name("other.dcm"))


@pytest.mark.parametrize("missing", ["Data0001.dat", "Index.dat", "Slidedat.ini", ""])
def test_a_missing_part_of_a_mirax_slide_is_named(missing, mirax, config):
    target = mirax.with_suffix("") / missing
    target.unlink() if missing else shutil.rmtree(target)
    with pytest.raises(SlideError, match=missing or "folder") as caught:
        slide_fingerprint(mirax)
    assert str(mirax) in caught.value.message
    assert "copy" in caught.value.mend
    (receipt,) = inspect.run([Slide("s", "p", str(mirax))], config=config, results=mirax.parent / "results")
    assert receipt.state == "quarantined"
    assert (missing or "folder") in receipt.reason


def test_a_missing_part_of_a_vms_slide_is_named(vms):
    vms.with_name("a_macro.jpg").unlink()
    slide_fingerprint(vms)
    vms.with_name("a(1,0).jpg").unlink()
    with pytest.raises(SlideError, match=r"missing in .*: a\(1,0\)\.jpg"):
        slide_fingerprint(vms)
    vms.write_text("nothing")
    with pytest.raises(SlideError, match="names no image file"):
        slide_fingerprint(vms)


@pytest.mark.parametrize("syntax", [b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.4.50"])
def test_the_series_is_read_past_sequences(syntax, tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom(b"1.2.840.99.12345", syntax))
    assert series_uid(tmp_path / "a.dcm") == "1.2.840.99.12345"


def test_a_header_that_cannot_be_read_has_no_series(tmp_path):
    path = tmp_path / "a.dcm"
    whole = dicom(b"1.2.3")
    for cut in range(0, whole.index(b"1.2.3") + 4, 7):
        path.write_bytes(whole[:cut])
        assert series_uid(path) in (None, "1.2.3"[: max(0, cut - whole.index(b"1.2.3"))])
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in random.integers(132, len(whole), 4):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        series_uid(path)
    deep = b"".join(
        struct.pack("<HH", 8, 0x1115) + b"SQ\0\0" + b"\xff" * 4 + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        for _ in range(5000)
    )
    path.write_bytes(bytes(128) + b"DICM" + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1") + deep)
    assert series_uid(path) is None


@pytest.mark.shared_data
def test_a_real_dicom_file(shared_data):
    import openslide

    path = shared_data / "wsi" / "openslide_boxes_0.dcm"
    with openslide.OpenSlide(path) as slide:
        assert series_uid(path) == slide.properties["dicom.SeriesInstanceUID"]
    assert parts(path) == [path]
