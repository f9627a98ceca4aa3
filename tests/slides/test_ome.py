import time

import pytest

from histill.slides.ome import MAX_CHARACTERS, OmeImage, read_ome, unit_um

IMAGE = '<Image ID="{id}">{settings}<Pixels SizeX="{x}" SizeY="{y}" {size}></Pixels></Image>'


def document(*images, prefix=""):
    body = "".join(
        IMAGE.format(id=index, x=x, y=y, size=size, settings=settings)
        for index, (x, y, size, settings) in enumerate(images)
    )
    return f'<?xml version="1.0"?><!-- a comment --><OME xmlns="http://www.openmicroscopy.org/x">{prefix}{body}</OME>'


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        *(("µm", 1.0), ("μm", 1.0), ("um", 1.0), ("Âµm", 1.0), ("micron", 1.0), ("Microns", 1.0), ("nm", 1e-3)),
        *(("pm", 1e-6), ("Å", 1e-4), ("\u212b", 1e-4), ("mm", 1e3), ("cm", 1e4), ("m", 1e6), ("in", 25400.0)),
        *(("inches", None), ("inch", 25400.0), ("thou", 25.4), ("pixel", None), ("reference frame", None), ("", None)),
    ],
)
def test_units(unit, um):
    assert unit_um(unit) == (None if um is None else pytest.approx(um, rel=1e-12))


def test_the_default_unit_is_micrometre_and_each_axis_has_its_own():
    text = document((100, 80, 'PhysicalSizeX="0.25" PhysicalSizeY="2600" PhysicalSizeYUnit="Å"', ""))
    assert read_ome(text, None) == (0.25, pytest.approx(0.26), None)
    assert read_ome(document((100, 80, 'PhysicalSizeX="0.25" PhysicalSizeXUnit="pixel"', "")), None)[:2] == (None, None)


def test_the_image_of_the_slides_size_counts_else_the_largest():
    macro = (500, 400, 'PhysicalSizeX="50" PhysicalSizeY="50"', '<ObjectiveSettings ID="o:1"/>')
    slide = (9000, 8000, 'PhysicalSizeX="0.25" PhysicalSizeY="0.25"', '<ObjectiveSettings ID="o:2"/>')
    objectives = '<Objective ID="o:1" NominalMagnification="1"/><Objective ID="o:2" NominalMagnification="40"/>'
    text = document(macro, slide, prefix=f"<Instrument>{objectives}</Instrument>")
    assert read_ome(text, (9000, 8000)) == OmeImage(0.25, 0.25, "40")
    assert read_ome(text, (500, 400)) == OmeImage(50, 50, "1")
    assert read_ome(text, None) == OmeImage(0.25, 0.25, "40")
    assert read_ome(text, (4500, 4000)) is None, "the size of a picture that was shrunk afterwards"


def test_a_document_that_breaks_off_gives_what_came_before():
    text = document((100, 80, 'PhysicalSizeX="0.25" PhysicalSizeY="0.25"', ""))
    assert read_ome(text[:-20], None) == OmeImage(0.25, 0.25, None)
    assert read_ome(text[:100], None) is None


@pytest.mark.parametrize(
    "text", ["", "<", "MPP = 0.25", "<svg></svg>", "<OME", "<OME>\x00</OME>", "<OME></OME>", "\udcff<OME/>"]
)
def test_what_is_no_ome_gives_nothing(text):
    assert read_ome(text, None) is None


def test_entities_are_never_expanded_and_size_is_bounded():
    bomb = '<!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12)
    )
    outside = '<!DOCTYPE OME [<!ENTITY a SYSTEM "file:///etc/hostname">'
    for kind in (bomb, outside):
        text = kind + ']><OME><Image Name="&a;"><Pixels SizeX="9" SizeY="9" PhysicalSizeX="0.25"/></Image></OME>'
        assert read_ome(text, None) is None
    long = document(*[(9, 9, 'PhysicalSizeX="0.25"', "")] * 2, prefix="<Z>" * (2 * MAX_CHARACTERS))
    start = time.perf_counter()
    assert read_ome(long, None) is None
    assert time.perf_counter() - start < 5
