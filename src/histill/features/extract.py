"""Feature extraction: every kept tile of a batch of slides through the encoders, both magnifications from one read.

The field of a 10x tile is read once at 20x; its quarters are the four 20x tiles, and its 2 × 2 average is the 10x tile.
A field that cannot be read becomes flagged rows (`valid` False, zeros), never silent white.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from histill import isolation
from histill.batches import run_together
from histill.cohort.sheets import Slide
from histill.encoders import recipes
from histill.encoders.build import Encoder, build
from histill.encoders.passes import TILES, Pass
from histill.errors import HistillError
from histill.features import stain
from histill.features.chosen import Chosen
from histill.features.fields import no_fields, read_fields
from histill.features.lock import StoreBusyError
from histill.features.store import store_path, verify
from histill.magnifications import MAGNIFICATIONS
from histill.provenance import EMPTY, Receipt, file_digest, read_json
from histill.slides import tile
from histill.slides.readers import open_slide
from histill.stages import recipe
from histill.storage import StorageError

_READER_SHARE = 4  # on a CPU reading gets one thread in four: networks take the rest, and most of the time


def run(
    slides: list[Slide], *, config: dict[str, Any], results: str | Path, threads: int | None = None
) -> list[Receipt]:
    """Extract features of a batch of slides; the encoders are built once, when a slide needs them.

    Parameters
    ----------
    threads
        CPU threads to use; None: `features.threads`, and no more than there are.

    Raises
    ------
    HistillError
        When an encoder cannot be had: no slide is at fault.
    """
    results = Path(results)
    chosen = [Chosen.of(name, given, config, results) for name, given in recipes.chosen(config).items()]
    method = chosen[0].stain
    threads = threads or min(config["features"]["threads"], len(os.sched_getaffinity(0)))

    def inputs(slide: Slide) -> dict[str, str]:
        folder = results / "slides" / slide.slide_id
        found = {
            "tiles": file_digest(folder / "tiles.parquet"),
            "slide": read_json(folder / "slide.json")["fingerprint"],
            **{f"encoder:{one.name}": one.identity for one in chosen},
        }
        return found if method == "none" else found | {"stain": file_digest(folder / tile.QUALITY)}

    def on_empty(slide: Slide, receipt: Receipt) -> None:
        """Bags of zero rows: whoever opens the store of any slide that could be read finds one."""
        for one in chosen:
            with one.writer(results, slide, no_fields(), None) as writer:
                record = writer.finish()
            _note(receipt, one, record)

    return run_together(
        "features",
        slides,
        partial(_work, chosen=chosen, config=config, results=results, threads=threads),
        results=results,
        recipe=recipe("features", config),
        inputs=inputs,
        before="tiles",
        on_empty=on_empty,
        on_error=config["on_error"],
    )


def _work(
    todo: list[tuple[Slide, Receipt]], *, chosen: list[Chosen], config: dict[str, Any], results: Path, threads: int
) -> Iterator[tuple[Slide, Receipt, Exception | None]]:
    """Extract slides together (`histill.batches.run_together`)."""
    from histill.features.engine import Engine, Job
    from histill.features.progress import Progress

    options, size = config["features"], config["tiles"]["size"]
    fields, known, failed = max(1, options["batch_size"] // TILES), {}, {}
    for slide, _ in todo:
        try:
            known[slide.slide_id] = read_fields(results / "slides" / slide.slide_id / "tiles.parquet")
        except HistillError as error:
            failed[slide.slide_id] = error
    with ExitStack() as stack:
        encoders, on_cpu = _build(chosen, options["device"], threads, stack)
        encode = Pass(encoders, size=size, fields=fields)
        tiles = TILES * sum(map(len, known.values()))
        progress = stack.enter_context(Progress(slides=len(todo), tiles=tiles, what="features"))
        readers = max(1, threads // _READER_SHARE) if on_cpu else threads
        engine = Engine(
            encode,
            fields=fields,
            side=2 * size,
            threads=readers,
            limits=isolation.limits(config),
            progress=progress,
        )

        def jobs() -> Iterator[Job]:
            for slide, receipt in todo:
                job = Job(slide.slide_id, error=failed.get(slide.slide_id))
                if job.error is None:
                    _open(job, slide, receipt, known.pop(slide.slide_id), chosen, encoders, config, results)
                yield job

        finished = stack.enter_context(closing(engine.run(jobs())))
        for (slide, receipt), job in zip(todo, finished, strict=True):
            if job.error is None:
                _fill(receipt, job, slide, chosen)
                receipt.warnings += encode.warnings
                if job.writers:
                    figures = progress.figures()
                    receipt.info |= {key: figures[key] for key in ("tiles_per_second", "encoder_busy", "queue_depth")}
            receipt.seconds = job.seconds
            progress.slide_done()
            yield slide, receipt, job.error


def _build(chosen: list[Chosen], device: str, threads: int, stack: ExitStack) -> tuple[dict[str, Encoder], bool]:
    """The encoders, and whether they run on the CPU; a GPU is leased for as long as `stack` is open."""
    on_cpu = True
    if any(one.recipe.builder != "descriptor" for one in chosen):
        import torch

        from histill.device import lease

        leased = stack.enter_context(lease(device))
        device, on_cpu = str(leased), leased.type == "cpu"
        if on_cpu:
            torch.set_num_threads(threads)
    return {one.name: build(one.recipe, weights=one.weights, device=device) for one in chosen}, on_cpu


def _open(job, slide, receipt, fields, chosen, encoders, config, results) -> None:
    """Fill a job in: its source, and the stores that are not complete yet."""
    from histill.features.reading import Source

    folder = results / "slides" / slide.slide_id
    method = chosen[0].stain
    try:
        how = {key: config["slides"][key] for key in ("icc", "resample")}
        facts = read_json(folder / "slide.json")
        fields.check_inside(facts["width"], facts["height"], folder / "tiles.parquet")
        opener = partial(open_slide, slide.path, facts["reader"], **how)
        quality = {} if method == "none" else read_json(folder / tile.QUALITY)
        normalise = stain.normaliser(method, quality, slide.slide_id)
        job.source = Source(slide.path, opener, facts["fingerprint"], fields.boxes, normalise)
        for one in chosen:
            encoder, inputs = encoders[one.name], one.inputs(receipt)
            record = _complete(results / store_path(one.name, slide.slide_id), one.key(fields, inputs, encoder))
            if record is not None:
                job.records[one.name] = record
            else:
                job.writers[one.name] = one.writer(results, slide, fields, inputs, encoder)
    except (StoreBusyError, StorageError):  # nothing is wrong with the slide: two runs in one folder, or a full disk
        raise
    except Exception as error:  # what this slide's files hold is its own misfortune
        job.error = error


def _complete(path: Path, key: str) -> dict[str, Any] | None:
    """Record of a store that is whole and of this key: made in a pass of fewer encoders, or just before a kill."""
    try:
        record = verify(path)
    except HistillError:
        return None
    return record if record.get("key") == key else None


def _fill(receipt: Receipt, job, slide: Slide, chosen: list[Chosen]) -> None:
    for one in reversed(chosen):  # the first one's counts stand
        _note(receipt, one, job.records[one.name])
    receipt.info = {"encoder": chosen[0].name, "dim": chosen[0].recipe.dim, "patient_id": slide.patient_id}
    if len(chosen) > 1:
        receipt.info["also"] = [one.name for one in chosen[1:]]
    receipt.info["stain_normalisation"] = chosen[0].stain
    receipt.warnings = [line for one in chosen for line in one.off_recipe] + job.notes
    rows = sum(receipt.counts[name] for name in MAGNIFICATIONS)
    if rows == 0:
        receipt.state, receipt.reason = EMPTY, "no tile is kept, so the bag is empty"
        receipt.mend = "look at the overview with: histill doctor <slide>"
    elif receipt.counts["unreadable"] == rows:
        receipt.state, receipt.reason = EMPTY, f"none of {rows} tiles could be read, so the bag is empty"
        receipt.mend = "copy or download the slide again"
    elif receipt.counts["unreadable"]:
        receipt.warnings.append(f"{receipt.counts['unreadable']} of {rows} tiles could not be read")


def _note(receipt: Receipt, one: Chosen, record: dict[str, Any]) -> None:
    """Output and counts of a store."""
    path = store_path(one.name, receipt.slide)
    receipt.outputs[path] = record["digest"]
    receipt.counts = {name: record["groups"][name]["rows"] for name in MAGNIFICATIONS}
    receipt.counts["unreadable"] = sum(group["rows"] - group["valid"] for group in record["groups"].values())
