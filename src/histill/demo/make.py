"""Make the synthetic cohort on disk."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from histill.demo.design import (
    CLASSES,
    CLINICAL_COLUMNS,
    MPP,
    SLIDE_COLUMNS,
    DemoPatient,
    DemoSlide,
    clinical_rows,
    design,
    slide_path,
    slide_rows,
)
from histill.demo.expression import background_genes, counts, programme_genes, write_counts
from histill.forked import die_with
from histill.provenance import atomic_file, write_csv

TRUTH_COLUMNS = (
    "patient_id",
    "slide_id",
    "tumor",
    "microenvironment",
    "shown_tumor",
    "shown_microenvironment",
    "pen",
    "blurred",
    "corrupt",
)
README = """histill synthetic cohort
========================

Everything in this folder is synthetic. Slides are painted, counts and outcomes are drawn from random numbers; no
patient, tissue or measurement stands behind any of it. It shows how histill works and says nothing about biology.

patients {patients}, slides {slides}, transcriptomes {rna}, seed {seed}

slides/*.svs        painted H&E, 20x, {mpp} µm per pixel, TIFF pages as in Aperio files
slides.csv          one row a slide
clinical.csv        age, sex, site, os_months, os_event (1 death, 0 censored), diagnosis ({classes})
expression.tsv.gz   raw counts, genes in rows, patients in columns
truth.csv           the hidden factors and what each slide shows of them: for checks only, never an input of a model

Two independent factors drive a patient: a tumour factor (nuclei; genes of the tumour programmes) and a microenvironment
factor (fibre bands and lymphocyte clusters; genes of the microenvironment programmes). Survival and diagnosis depend on
both.

Flaws, on purpose: slide {corrupt} is cut off (its reader fails), slide {unknown} says nothing about its
resolution (slides.csv does), some slides have ink or blurred areas; patients without a transcriptome: {no_rna}, without
a slide: {no_slide}, without an outcome: {no_outcome}.
"""


def make(options: dict[str, Any], folder: Path, *, workers: int = 1) -> None:
    """Write the cohort of `demo` options below `folder`.

    Parameters
    ----------
    options
        `patients`, `seed`, `size_px` of a complete config.
    workers
        Processes that paint slides. The files do not depend on it.

    Raises
    ------
    HistillError
        When the gene lists of the package cannot be read.
    """
    folder = Path(folder)
    patients = design(options)
    slides = [slide for patient in patients for slide in patient.slides]
    slide_path(folder, "any").parent.mkdir(parents=True, exist_ok=True)
    table = counts(options, patients, programme_genes(), background_genes())

    if workers > 1:
        # Not fork: the caller may hold threads (BLAS, OpenCV), which a forked child would wait for.
        context = multiprocessing.get_context("spawn")
        # Workers of a process that was killed would wait for work for ever: each holds the others' queue open.
        ending = {"initializer": die_with, "initargs": (os.getpid(),)}
        with ProcessPoolExecutor(min(workers, len(slides)), mp_context=context, **ending) as pool:
            list(pool.map(paint_slide, slides, [folder] * len(slides)))
    else:
        for slide in slides:
            paint_slide(slide, folder)

    with atomic_file(folder / "expression.tsv.gz") as part:
        write_counts(part, *table)
    write_csv(folder / "clinical.csv", CLINICAL_COLUMNS, clinical_rows(patients))
    write_csv(folder / "truth.csv", TRUTH_COLUMNS, _truth_rows(patients))
    with atomic_file(folder / "README.txt") as part:
        part.write_text(_readme(options, patients, slides), encoding="utf-8")
    write_csv(folder / "slides.csv", SLIDE_COLUMNS, slide_rows(patients, folder))


def paint_slide(slide: DemoSlide, folder: Path) -> None:
    """Paint one slide and write its file."""
    import cv2

    from histill.demo.painter import paint
    from histill.demo.slide_file import cut_short, write_slide

    cv2.setNumThreads(1)
    with atomic_file(slide_path(folder, slide.slide_id)) as part:
        write_slide(part, paint(slide), slide.slide_id, mpp=MPP if slide.resolution_known else None)
        if slide.corrupt:
            cut_short(part)


def _truth_rows(patients: tuple[DemoPatient, ...]) -> list[dict[str, str]]:
    """One row a slide, and one with an empty slide for a patient without."""
    rows = []
    for patient in patients:
        latents = {"tumor": f"{patient.tumor:.4f}", "microenvironment": f"{patient.microenvironment:.4f}"}
        rows += [
            {
                "patient_id": patient.patient_id,
                "slide_id": slide.slide_id,
                **latents,
                "shown_tumor": f"{slide.tumor:.4f}",
                "shown_microenvironment": f"{slide.microenvironment:.4f}",
                "pen": slide.pen or "",
                "blurred": str(int(slide.blurred)),
                "corrupt": str(int(slide.corrupt)),
            }
            for slide in patient.slides
        ] or [{"patient_id": patient.patient_id, **latents}]
    return rows


def _readme(options: dict[str, Any], patients: tuple[DemoPatient, ...], slides: list[DemoSlide]) -> str:
    return README.format(
        patients=len(patients),
        slides=len(slides),
        rna=sum(patient.has_rna for patient in patients),
        seed=options["seed"],
        mpp=f"{MPP:g}",
        classes=", ".join(CLASSES),
        corrupt=", ".join(slide.slide_id for slide in slides if slide.corrupt),
        unknown=", ".join(slide.slide_id for slide in slides if not slide.resolution_known),
        no_rna=sum(not patient.has_rna for patient in patients),
        no_slide=sum(not patient.slides for patient in patients),
        no_outcome=sum(patient.diagnosis is None for patient in patients),
    )
