"""Whether a chain still holds: every file that a receipt names is digested again, and every link compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from histill.bundle.manifest import CARD
from histill.errors import HistillError
from histill.features import store
from histill.provenance import file_digest
from histill.slides import regions
from histill.trace.chain import Chain, Step
from histill.transcriptome.stage import content_digest

MISSING, CHANGED, BROKEN, OTHER, UNKNOWN = "missing", "changed", "stale", "other recipe", "no receipt"
_KINDS = {
    MISSING: "run snakemake again: it is made anew",
    CHANGED: "restore it, or delete it and run snakemake again",
    BROKEN: "run snakemake again: what stands on another version is made anew",
    OTHER: "config.json, or this version of histill, asks for something else: run snakemake with the config you mean",
    UNKNOWN: "run snakemake again; tables and pages of an earlier version have none: snakemake -R evaluate report",
}


@dataclass(frozen=True)
class Problem:
    """What does not hold: its kind, the step, and the file, receipt or link."""

    kind: str
    step: str
    what: str

    @property
    def mend(self) -> str:
        return _KINDS[self.kind]


@dataclass
class Findings:
    """What was compared, and what does not hold.

    Attributes
    ----------
    files, stores, links
        How many were compared.
    deep
        Whether stores were read whole.
    notes
        Worth saying, and no problem.
    """

    files: int = 0
    stores: int = 0
    links: int = 0
    deep: bool = False
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(chain: Chain, *, deep: bool = False) -> Findings:
    """Compare the steps of a chain with what lies below the results.

    Parameters
    ----------
    deep
        Read feature stores whole; otherwise only their completion records, which hold the digest of every file.
    """
    found = Findings(deep=deep)
    for step in chain.steps.values():
        found.problems += [Problem(UNKNOWN, step.name, name) for name in step.missing]
        for recipe, count in step.recipes.items():
            if step.wanted is not None and recipe != step.wanted:
                many = "receipt" if count == 1 else "receipts"
                found.problems.append(
                    Problem(OTHER, step.name, f"{count} {many} of recipe {recipe}; config.json asks for {step.wanted}")
                )
        for name, made in step.outputs.items():
            _check_output(found, step, chain.records.results, name, made)
        for what, stated, now in step.links:
            found.links += 1
            if stated != now:
                found.problems.append(Problem(BROKEN, step.name, f"made from another version of {what}"))
    return found


def _check_output(found: Findings, step: Step, results: Path, name: str, made: str) -> None:
    path = results / name
    if not path.exists():
        found.problems.append(Problem(MISSING, step.name, name))
        return
    if path.is_dir():
        found.stores += 1
    else:
        found.files += 1
    try:
        now = _digest(path, deep=found.deep)
    except HistillError as error:
        found.problems.append(Problem(CHANGED, step.name, f"{name}: {error.message}"))
        return
    if now == made:
        return
    if _may_be_edited(path):
        found.notes.append(f"{name}: edited by hand")
    else:
        found.problems.append(Problem(CHANGED, step.name, name))


def _digest(path: Path, *, deep: bool) -> str:
    """Digest of an output, as its stage takes it."""
    if path.is_dir():
        return store.verify(path)["digest"] if deep else store.record_digest(path)
    return content_digest(path) if path.suffix == ".h5ad" else file_digest(path)


def _may_be_edited(path: Path) -> bool:
    """Outlines of tissue, from which tiles follow, and model cards, from which nothing does."""
    return path.name == CARD or (path.suffix == ".geojson" and regions.is_edited(path))
