"""`histill predict`: raw slides in; for each a prediction, maps, and a page to look at. No genes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histill import config as configuration
from histill.batches import read_receipt
from histill.bundle import slide_files
from histill.bundle.bundle import Bundle
from histill.bundle.pixels import AGAIN
from histill.cohort.sheets import Slide
from histill.errors import HistillError, SlideError
from histill.features import extract
from histill.features.chosen import Chosen
from histill.provenance import OK, owner, read_json, remove_parts, write_json
from histill.slides import inspect, segment, tile
from histill.slides.parts import slide_fingerprint
from histill.slides.scan import slide_id

FAILURE = "failure.json"
WORK = ".work"
# The stages' words for what is to be done, and those of this command.
_MENDS = {
    r"(run:? )?snakemake( -R \w+| again)": AGAIN,
    r"; or set slides\.allow_upsampling: true to enlarge its pixels": "",  # the models have seen no enlarged pixels
    r"slides\.time_limit": "--time-limit",
    r"slides\.memory_mb": "--memory-mb",
    r"in the column mpp of the slide sheet": "with --mpp",
    r"the column mpp of the slide sheet": "--mpp",
    r"the column path": "its path",
    r"draw it in QuPath and save it as .*\.work[^/]*": f"{AGAIN} with --keep; draw it in QuPath as OUT/{WORK}",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a slide.

    Attributes
    ----------
    slide
        The file, and its id.
    folder
        Where its results are.
    prediction
        Content of prediction.json; None where it failed.
    failure
        Content of failure.json (`step`, `reason`, `mend`), or None.
    """

    slide: Slide
    folder: Path
    prediction: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None


def run(
    bundle: str | Path,
    slides: list[Path],
    out: str | Path,
    *,
    mpp: float | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    time_limit: float | None = None,
    memory_mb: int | None = None,
    keep: bool = False,
    log: Callable[[str], None] = print,
) -> list[Outcome]:
    """Predict slides, each for itself, and write `OUT/<slide>/`.

    The stages of the workflow do the work on slides, under the options that the bundle was trained with: a slide that
    cannot be read is set aside with its reason, and the others go on.

    Parameters
    ----------
    bundle
        Folder of `histill export`.
    slides
        Files of slides.
    mpp
        µm per pixel of all slides; None: as the files say.
    weights
        Local file or folder of the encoder's weights in place of the hub's.
    threads
        CPU threads; None: as many as there are, up to what the bundle says.
    time_limit, memory_mb
        Seconds and MiB that a slide may take in a stage; None: as the bundle says.
    keep
        Keep tissue, tiles and features in `OUT/.work`; a later run goes on from there.

    Raises
    ------
    HistillError
        Where it is no slide's fault: the bundle, the encoder or the folder.
    """
    out = Path(out)
    _check_out(out)
    loaded = Bundle.read(bundle)
    limits = {"time_limit": time_limit, "memory_mb": memory_mb}
    limits = {name: value for name, value in limits.items() if value is not None}
    config = stage_config(loaded, limits, weights=weights, device=device)
    rows = _rows(slides, mpp)
    _check_places(out, rows)
    log(f"{Path(bundle).resolve().name}: {loaded.task.name}, {len(loaded.members)} models")
    with _work_folder(out, keep) as work:
        _check_recipe(loaded, _recipe(config, work))
        for stage in (inspect, segment, tile):
            stage.run(rows, config=config, results=work)
        extract.run(rows, config=config, results=work, threads=threads)
        try:
            return [_predict(loaded, slide, work, out, config) for slide in rows]
        except OSError as error:
            message = f"{error.filename or out} cannot be written: {error.strerror}"
            raise HistillError(message, mend="make room, or name another folder with --out") from None


def told(outcome: Outcome) -> str:
    """What became of a slide, in lines for a terminal."""
    name = slide_files.file_name(outcome.slide)
    if outcome.failure:
        lines = [f"{name}: FAILED at {outcome.failure['step']}: {outcome.failure['reason']}"]
        return "\n".join(lines + ([f"  mend: {outcome.failure['mend']}"] if outcome.failure["mend"] else []))
    said = outcome.prediction["prediction"]
    if said["type"] == "survival":
        answer = f"risk above that of {said['percentile']:.0f} % of the reference patients"
    else:
        answer = ", ".join(f"{row['class']} {row['probability']:.2f}" for row in said["classes"])
    warned = [f"  warning: {one['head']} {one['text']}" for one in outcome.prediction["warnings"]]
    return "\n".join([f"{name}: {answer}", *warned, f"  {outcome.folder / slide_files.PAGE}"])


def stage_config(bundle: Bundle, limits: dict[str, Any], *, weights: str | Path | None, device: str) -> dict[str, Any]:
    """The complete config under which the stages make the features that a bundle reads.

    Parameters
    ----------
    limits
        `time_limit` and `memory_mb` in place of the bundle's, or neither.

    Raises
    ------
    HistillError
        If the bundle's features were not made by histill from slides.
    """
    options = bundle.options
    if options["features"]["source"] != "extract":
        raise HistillError(
            f"bundle {bundle.folder} was trained on imported features, which histill cannot make of a slide",
            mend="use a bundle that was trained on features.source: extract",
        )
    features = {"also": {}, "table": None, "weights": str(weights) if weights else None, "device": device}
    own = {
        "slides": options["slides"] | limits,
        "tissue": options["tissue"] | {"device": device},
        "tiles": options["tiles"],
        "features": options["features"] | features,
    }
    return configuration.complete({**own, "cohort": {}})


def _check_recipe(bundle: Bundle, recipe: dict[str, Any]) -> None:
    try:
        bundle.check_recipe(recipe)
    except HistillError as error:
        mend = (
            f"give the weights that it names with --weights, or use histill {bundle.about['histill']}, which wrote it"
        )
        raise HistillError(error.message, mend=mend) from None


def _recipe(config: dict[str, Any], work: Path) -> dict[str, Any]:
    """How this machine would make features: checked before any slide is read."""
    name = config["features"]["encoder"]
    return Chosen.of(name, config["features"]["weights"], config, work).described


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise HistillError(f"{out} is a file", mend="name a folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HistillError(f"{out} cannot be made: {error.strerror}", mend="name another folder with --out") from None


def _check_places(out: Path, rows: list[Slide]) -> None:
    """Refuse what is in the way of results, before any slide is read."""
    for folder in (out / slide.slide_id for slide in rows):
        wrong = [folder] if folder.exists() and not folder.is_dir() else []
        wrong += [folder / name for name in (FAILURE, *slide_files.NAMES) if (folder / name).is_dir()]
        if wrong:
            raise HistillError(
                f"{wrong[0]} is in the way of the results", mend="remove it, or name another folder with --out"
            )
    for slide in rows:
        if _is_of_another(out / slide.slide_id / slide_files.PREDICTION, slide):
            raise HistillError(
                f"{out / slide.slide_id} holds the prediction of another slide named {slide_files.file_name(slide)}",
                mend="name another folder with --out, or remove that one",
            )


def _is_of_another(prediction: Path, slide: Slide) -> bool:
    """Whether a prediction.json is there, and of a slide with another content."""
    if not prediction.is_file():
        return False
    try:
        own = slide_fingerprint(slide.path)
    except (OSError, SlideError):
        return False  # a slide that cannot be read fails in the first stage, with its reason
    told = read_json(prediction)
    known = told.get("slide") if isinstance(told, dict) else None
    return not isinstance(known, dict) or known.get("fingerprint") != own


def _rows(slides: list[Path], mpp: float | None) -> list[Slide]:
    taken: set[str] = set()
    names = [slide_id(Path(path), taken) for path in slides]
    return [Slide(name, name, str(path), mpp) for name, path in zip(names, slides, strict=True)]


@contextmanager
def _work_folder(out: Path, keep: bool) -> Iterator[Path]:
    if keep:
        yield out / WORK
        return
    remove_parts(out, WORK.lstrip("."))  # of a run that was killed
    with tempfile.TemporaryDirectory(prefix=f"{WORK}.{owner()}.", suffix=".part", dir=out) as folder:
        yield Path(folder)


def _predict(bundle: Bundle, slide: Slide, work: Path, out: Path, config: dict[str, Any]) -> Outcome:
    """Predict a slide that came through the stages; of another say why it did not."""
    folder = _fresh(out, slide)
    receipt = read_receipt(work, "features", slide.slide_id)
    if receipt.state != OK:
        return _fail(slide, folder, receipt.info.get("stage", receipt.stage), receipt.reason, receipt.mend)
    try:
        return Outcome(slide, folder, prediction=slide_files.write(bundle, slide, work, folder, config))
    except HistillError as error:
        return _fail(slide, _fresh(out, slide), "predict", error.message, error.mend)


def _fail(slide: Slide, folder: Path, step: str, reason: str | None, mend: str | None) -> Outcome:
    for pattern, own in _MENDS.items():
        mend = mend and re.sub(pattern, own, mend)
    failure = {"file": slide_files.file_name(slide), "step": step, "reason": reason, "mend": mend}
    failure = slide_files.portable(failure, slide)
    write_json(folder / FAILURE, failure)
    return Outcome(slide, folder, failure=failure)


def _fresh(out: Path, slide: Slide) -> Path:
    """The slide's folder, without what an earlier run left there: it could be of another bundle."""
    folder = out / slide.slide_id
    folder.mkdir(exist_ok=True)
    for name in (FAILURE, *slide_files.NAMES):
        (folder / name).unlink(missing_ok=True)
    return folder
