"""Results that travel without their run: bundles, and predictions of `histill predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.bundle import manifest
from histill.bundle.slide_files import PREDICTION
from histill.errors import HistillError
from histill.provenance import read_json
from histill.trace.check import CHANGED


def find(path: Path) -> tuple[dict[str, Any], str] | None:
    """What a bundle or a prediction says of itself, as JSON and as text; None where a path is neither.

    Raises
    ------
    HistillError
        If its record is not what histill writes.
    """
    place = path.resolve()
    for folder in (place, *place.parents):
        for name, told in ((manifest.MANIFEST, _bundle), (PREDICTION, _prediction)):
            if not (folder / name).is_file():
                continue
            try:
                return told(folder)
            except (KeyError, TypeError, AttributeError):
                mend = "get the bundle again, or predict the slide again: histill predict"
                raise HistillError(f"{folder / name} is not what histill writes", mend=mend) from None
    return None


def _bundle(folder: Path) -> tuple[dict[str, Any], str]:
    problems = []
    try:
        manifest.read(folder, strict=False)
    except HistillError as error:
        problems.append({"kind": CHANGED, "step": "bundle", "what": error.message, "mend": error.mend})
    about = read_json(folder / manifest.MANIFEST)
    runs = [f"fold {member['fold']} seed {member['seed']}" for member in about["members"]]
    lines = [
        f"made by      histill export, histill {about['histill']}: {about['method']} {about['stage']}",
        f"digest       {about['digest']}",
        f"task         {about['task']['name']} ({about['task']['type']})",
        f"members      {len(runs)}: {', '.join(runs)}",
        f"encoder      {about['encoder']['name']}",
        f"cohort       {about['cohort']['patients']} patients, {about['cohort']['slides']} slides",
        f"compared     {len(about['files'])} files",
        "the run that made it is not here: trace the bundle in the results folder for the chain",
    ]
    return {"made_by": "bundle", "about": about, "problems": problems}, "\n".join(lines)


def _prediction(folder: Path) -> tuple[dict[str, Any], str]:
    told = read_json(folder / PREDICTION)
    slide, bundle = told["slide"], told["bundle"]
    problems = [
        {"kind": "missing", "step": "predict", "what": name, "mend": "predict the slide again: histill predict"}
        for name in told["files"]
        if not (folder / name).exists()
    ]
    lines = [
        f"made by      histill predict, histill {told['histill']}",
        f"slide        {slide['file']}, fingerprint {slide['fingerprint']}",
        f"bundle       digest {bundle['digest']}: {bundle['method']} {bundle['stage']}, {bundle['members']} members, "
        f"made by histill {bundle['histill']}",
        f"encoder      {bundle['encoder']}",
        f"present      {len(told['files']) - len(problems)} of {len(told['files'])} files (they carry no digests)",
        "histill trace on the bundle of that digest goes on from here",
    ]
    return {"made_by": "predict", "about": told, "problems": problems}, "\n".join(lines)
