"""Batches of slides: stable membership, and the loop that gives every slide its receipt.

A slide belongs to a batch by a hash of its id, never by its place in the sheet, so adding a slide re-plans one batch;
inside that batch every slide whose receipt still fits is skipped.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from histill import isolation, software
from histill.errors import HistillError, SlideError
from histill.provenance import (
    EMPTY,
    OK,
    QUARANTINED,
    Receipt,
    digest,
    read_json,
    remove_parts,
    unchanged,
    verify_outputs,
    write_json,
)
from histill.redact import hide
from histill.storage import explained

SMALL_COHORT = 32  # `auto`: up to here one slide a batch
AUTO_SIZE = 64


def assign(slide_ids: Iterable[str], size: int | str = "auto") -> dict[str, list[str]]:
    """Batches of about `size` slides: name -> sorted slide ids.

    Linear hashing (Litwin, VLDB 1980): there are `slides / size` batches, rounded up, and a further one takes its
    slides from a single other one. A cohort thus grows without its other batches being filled anew. `auto` is one slide
    a batch up to 32 slides, then 64.
    """
    ids = sorted(slide_ids)
    if size == "auto":
        size = 1 if len(ids) <= SMALL_COHORT else AUTO_SIZE
    if int(size) == 1:
        return {slide: [slide] for slide in ids}
    count = max(1, -(-len(ids) // int(size)))
    half = 1 << (count.bit_length() - 1)  # the largest power of two that is no more than `count`
    batches: dict[str, list[str]] = {}
    for slide in ids:
        bucket = int(hashlib.sha256(slide.encode()).hexdigest()[:8], 16) % (2 * half)
        if bucket >= count:  # not split yet
            bucket -= half
        batches.setdefault(f"{bucket:05d}", []).append(slide)
    return dict(sorted(batches.items()))


def receipt_path(results: str | Path, stage: str, slide: str) -> Path:
    """Where a slide's receipt of a stage lies."""
    return Path(results) / "slides" / slide / "receipts" / f"{stage}.json"


def read_receipt(results: str | Path, stage: str, slide: str) -> Receipt:
    """A slide's receipt of an earlier stage; it must be there."""
    receipt = Receipt.read(receipt_path(results, stage, slide))
    if receipt is None:
        raise HistillError(
            f"slide {slide} has no readable receipt of stage '{stage}' below {results}",
            mend=f"run that stage: snakemake {stage}, or snakemake -R {stage}_batch if it has run before",
        )
    return receipt


def run_batch(
    stage: str,
    slides: Iterable[Any],
    work: Callable[[Any, Receipt], None],
    *,
    results: str | Path,
    recipe: str,
    inputs: Callable[[Any], dict[str, str]],
    before: str | None = None,
    on_empty: Callable[[Any, Receipt], None] | None = None,
    on_error: str = "quarantine",
    limits: dict[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> list[Receipt]:
    """Run `work` on every slide that needs it and return all receipts, in the order of `slides`.

    Parameters
    ----------
    slides
        Objects with a `slide_id`.
    work
        Does the slide's work and fills the receipt in (state, outputs, counts, info, warnings). It may raise; then the
        slide is quarantined with the error's text, and the cohort goes on; unless results cannot be written
        (`histill.storage`): that ends the stage.
    recipe
        `histill.stages.recipe` of the stage.
    inputs
        Digests of what the slide's work reads; together with `recipe` they decide whether it can be skipped.
    before
        Earlier stage; a slide that is not `ok` there is passed on as it is, with its reason.
    on_empty
        Called when a slide that came out `empty` earlier is passed on: what the stage writes for nothing.
    on_error
        `quarantine`, or `fail`: raise after the first bad slide (its receipt is written all the same).
    limits
        `isolation.limits(config)`: what touches a slide's file runs in a child process within them. One child answers
        `inputs` for the whole batch, so that a slide which is skipped costs no process; `work` has one of its own, and
        only what it writes and its receipt outlive that. None: everything runs here.
    """
    slides = list(slides)
    perform: Callable[[Any, Receipt], Receipt] = partial(_here, work)
    if limits is not None:
        limits = limits | {"again": f"snakemake -R {stage}_batch"}
        perform = _Isolated(stage, work, Path(results), limits)
    desk = _Desk(stage, Path(results), recipe, before, on_empty, on_error, log)
    receipts = []
    with closing(_answers(stage, slides, inputs, limits)) as known:
        for slide, answer in zip(slides, known, strict=True):
            start = time.perf_counter()
            receipt, todo = desk.begin(slide, answer)
            if todo:
                try:
                    receipt, error = perform(slide, receipt), None
                except Exception as raised:  # any failure of one slide is that slide's, and is reported with its type
                    if (problem := explained(raised, results)) is not None:
                        raise problem from raised
                    error = raised
                receipt.seconds = time.perf_counter() - start
                desk.end(slide, receipt, error)
            receipts.append(receipt)
    return receipts


def run_together(
    stage: str,
    slides: Iterable[Any],
    work: Callable[[list[tuple[Any, Receipt]]], Iterator[tuple[Any, Receipt, Exception | None]]],
    *,
    results: str | Path,
    recipe: str,
    inputs: Callable[[Any], dict[str, str]],
    before: str | None = None,
    on_empty: Callable[[Any, Receipt], None] | None = None,
    on_error: str = "quarantine",
    log: Callable[[str], None] = print,
) -> list[Receipt]:
    """As `run_batch`, for work that takes all slides of a batch together.

    Parameters
    ----------
    work
        Is given the slides that need it, with their receipts (none is no call), and yields each one when it is done,
        with what went wrong or None. What it raises is no slide's, and ends the stage.
    """
    slides = list(slides)
    desk = _Desk(stage, Path(results), recipe, before, on_empty, on_error, log)
    receipts, todo = {}, []
    for slide in slides:
        receipts[slide.slide_id], needed = desk.begin(slide, partial(inputs, slide))
        if needed:
            todo.append((slide, receipts[slide.slide_id]))
    if todo:
        with closing(work(todo)) as done:
            for slide, receipt, error in done:
                desk.end(slide, receipt, error)
    return [receipts[slide.slide_id] for slide in slides]


class _Desk:
    """Where a batch's slides come in and go out: their receipts."""

    def __init__(self, stage, results, recipe, before, on_empty, on_error, log):
        self.stage, self.results, self.recipe = stage, results, recipe
        self.before, self.on_empty, self.on_error, self.log = before, on_empty, on_error, log
        self.software = software.mark(results)

    def begin(self, slide: Any, inputs: Callable[[], dict[str, str]]) -> tuple[Receipt, bool]:
        """A slide's receipt, and whether its work is still to be done."""
        path = receipt_path(self.results, self.stage, slide.slide_id)
        if self.before is not None:
            earlier = read_receipt(self.results, self.before, slide.slide_id)
            if earlier.state != OK:
                return self._pass_on(slide, earlier), False
        receipt = Receipt(slide.slide_id, self.stage, OK, self.recipe, software=self.software)
        try:
            receipt.inputs = inputs()
            done = Receipt.read(path)
            same = done and (done.recipe, done.inputs) == (self.recipe, receipt.inputs)
            if same and verify_outputs(done, self.results) and done.state != QUARANTINED:  # what failed is tried again
                self.log(f"{self.stage} {slide.slide_id}: up to date")
                return done, False
            path.unlink(missing_ok=True)  # from here on the old receipt would be a lie
        except Exception as error:
            self.end(slide, receipt, error)
            return receipt, False
        return receipt, True

    def end(self, slide: Any, receipt: Receipt, error: Exception | None) -> None:
        """Write a slide's receipt, which says what went wrong if something did."""
        if error is not None:
            receipt.state, receipt.outputs = QUARANTINED, {}
            receipt.reason = _reason(error, slide)
            receipt.mend = getattr(error, "mend", None) or "check the file with: histill doctor <slide>"
            if not isinstance(error, HistillError):
                self.log(_traceback(error))
        receipt.seconds = round(receipt.seconds, 3)
        path = receipt_path(self.results, self.stage, slide.slide_id)
        try:
            receipt.write(path)
        except OSError as problem:
            raise (explained(problem) or problem) from error
        why = f" ({receipt.reason})" if receipt.reason else ""
        self.log(f"{self.stage} {slide.slide_id}: {receipt.state}{why}")
        if receipt.state == QUARANTINED and self.on_error == "fail":
            raise SlideError(f"slide {receipt.slide}: {receipt.reason}", mend=receipt.mend)

    def _pass_on(self, slide: Any, earlier: Receipt) -> Receipt:
        inputs = {self.before: digest_receipt(earlier)}
        receipt = Receipt(slide.slide_id, self.stage, earlier.state, self.recipe, inputs, software=self.software)
        receipt.reason, receipt.mend = earlier.reason, earlier.mend
        receipt.info = {"stage": earlier.info.get("stage", self.before)}
        if earlier.state == EMPTY and self.on_empty is not None:
            self.on_empty(slide, receipt)
        receipt.write(receipt_path(self.results, self.stage, slide.slide_id))
        if receipt.state == QUARANTINED and self.on_error == "fail":
            raise SlideError(f"slide {receipt.slide}: {receipt.reason}", mend=receipt.mend)
        return receipt


def _answers(stage, slides, inputs, limits) -> Iterator[Callable[[], dict[str, str]]]:
    """For each slide what gives its inputs, or raises why there are none."""
    if limits is None:
        for slide in slides:
            yield partial(inputs, slide)
        return

    def told(answer: dict[str, str] | Exception) -> dict[str, str]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    answers = isolation.each(inputs, slides, what=lambda slide: f"{slide.path}: stage {stage}", **limits)
    with closing(answers):
        for answer in answers:
            yield partial(told, answer)


def _here(work: Callable[[Any, Receipt], None], slide: Any, receipt: Receipt) -> Receipt:
    work(slide, receipt)
    return receipt


class _Isolated:
    """Does each slide's `work` in a child process; called with a slide and its receipt, it returns that filled in.

    What a child imported is imported here before the next one starts: a reader's libraries cost 0.1 s, torch seconds.
    """

    def __init__(self, stage: str, work: Callable[[Any, Receipt], None], results: Path, limits: dict[str, Any]):
        self.stage, self.work, self.results, self.limits = stage, work, results, limits
        self.imports: list[str] = []

    def __call__(self, slide: Any, receipt: Receipt) -> Receipt:
        for name in self.imports:
            with suppress(ImportError):  # some modules can be imported by their package only
                importlib.import_module(name)
        known = set(sys.modules)

        def filled() -> tuple[Receipt, list[str]]:
            with unchanged(slide.path):
                self.work(slide, receipt)
            return receipt, [name for name in sys.modules if name not in known]

        try:
            what = f"{slide.path}: stage {self.stage}"
            filled_in, self.imports = isolation.call(filled, what=what, **self.limits)
        finally:
            remove_parts(self.results / "slides" / slide.slide_id)  # a child that is killed tidies nothing
        return filled_in


def _reason(error: Exception, slide: Any) -> str:
    if isinstance(error, HistillError):
        return error.message
    text = hide(f"{type(error).__name__}: {error}")
    return f"{slide.path}: {text}" if hasattr(slide, "path") else text


def _traceback(error: BaseException) -> str:
    import traceback

    return hide("".join(traceback.format_exception(error)))


def digest_receipt(receipt: Receipt) -> str:
    """Digest of what a receipt says, without how long it took."""
    return digest([receipt.state, receipt.recipe, receipt.inputs, receipt.outputs, receipt.reason])


def write_batch(path: str | Path, stage: str, receipts: list[Receipt]) -> None:
    """Write the batch receipt that Snakemake tracks: every slide's receipt, whole."""
    from dataclasses import asdict

    write_json(path, {"stage": stage, "slides": [asdict(receipt) for receipt in receipts]})


def check_current(results: str | Path, stage: str, receipts: Iterable[Receipt]) -> None:
    """Whether what batches say of their slides is what was done to them last.

    Raises
    ------
    HistillError
        Where a slide was done again since, in a batch of another size and under another config.
    """
    changed = []
    for receipt in receipts:
        own = Receipt.read(receipt_path(results, stage, receipt.slide))
        if own and (own.recipe, own.inputs, own.outputs) != (receipt.recipe, receipt.inputs, receipt.outputs):
            changed.append(receipt.slide)
    if changed:
        raise HistillError(
            f"stage '{stage}': {len(changed)} slides were done again since their batches: {', '.join(changed[:5])}",
            mend=f"run: snakemake -R {stage}_batch",
        )


def collect(paths: Iterable[str | Path]) -> list[Receipt]:
    """Receipts of several batch receipts, sorted by slide id."""
    receipts = []
    for path in paths:
        try:
            receipts.extend(Receipt(**entry) for entry in read_json(path)["slides"])
        except (KeyError, TypeError):
            raise HistillError(f"{path} is no receipt of slides", mend="delete it and run snakemake again") from None
    return sorted(receipts, key=lambda receipt: receipt.slide)
