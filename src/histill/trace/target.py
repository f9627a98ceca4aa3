"""From a path below the results to the steps that made it."""

from __future__ import annotations

from pathlib import Path

from histill.bundle.manifest import MANIFEST
from histill.errors import HistillError
from histill.stages import MODELS, SLIDE_STAGES
from histill.trace.chain import Chain
from histill.trace.records import RUN, Records

_SLIDE_FILES = {"slide.json": "inspect", "tissue.geojson": "tissue", "overview.jpg": "tissue"}
_PREDICTED = ("predictions.json", "predictions.parquet")


def chain_of(records: Records, path: Path) -> tuple[Chain, str]:
    """The chain behind a path, and the name of its last step.

    Parameters
    ----------
    path
        Below the results folder; `.` stands for the report.

    Raises
    ------
    HistillError
        If no step makes such a file.
    """
    chain = Chain(records)
    match path.parts:
        case (
            () | (("report.html" | "ro-crate-metadata.json" | "figures" | "workflow"), *_) | ("receipts", "report.json")
        ):
            return chain, chain.report()
        case (("evaluation" | "benchmark") as folder, name) | (
            "receipts",
            ("evaluation" | "benchmark") as folder,
            name,
        ):
            return _table(records, folder, Path(name).stem)
        case ("bundles", name, *_):
            return _bundle(records, name)
        case ("models", task, folder, run, stage, *rest) if _is_run(folder, run, stage):
            return _model(records, task, folder, run, stage, rest)
        case ("models", *_) if found := _runs(records.results, path):
            return _models(chain, found)
        case ("cohort" | "receipts", "audit.json"):
            return chain, chain.audit()
        case ("cohort", *_) | ("receipts", "cohort.json"):
            return chain, chain.cohort()
        case ("transcriptome", *_) | ("receipts", "transcriptome.json"):
            return chain, chain.transcriptome()
        case ("features", _, store, *_):
            chain = Chain(records, slide=store.removesuffix(".zarr"))
            return chain, chain.slide_stage("features")
        case ("features", *_):
            return chain, chain.slide_stage("features")
        case ("slides", slide, *rest):
            chain = Chain(records, slide=slide)
            return chain, chain.slide_stage(_SLIDE_FILES.get(rest[0] if rest else "", "tiles"))
        case ("receipts", name, *_) if Path(name).stem in SLIDE_STAGES:
            return chain, chain.slide_stage(Path(name).stem)
    raise HistillError(
        f"{records.results / path}: no stage of the workflow makes this",
        mend="name the report, a figure, an evaluation, a bundle, a run below models/, a store, or a slide's file",
    )


def _table(records: Records, folder: str, stem: str) -> tuple[Chain, str]:
    chain, tasks = Chain(records), records.config["tasks"]
    task = stem.removeprefix("ablation-")
    if folder == "benchmark" and stem in tasks:
        return chain, chain.benchmark(stem)
    if stem in tasks:
        return chain, chain.evaluate(stem)
    if folder == "evaluation" and task in tasks:
        return chain, chain.ablation(task)
    raise HistillError(
        f"{records.results / folder}: '{stem}' is no task of config.json",
        mend=f"run snakemake again with the config that has it; tasks there are: {', '.join(tasks) or 'none'}",
    )


def _bundle(records: Records, name: str) -> tuple[Chain, str]:
    chain, place = Chain(records), records.results / "bundles" / name
    if not (place / MANIFEST).is_file():
        raise HistillError(f"{place} is no bundle: it has no {MANIFEST}", mend="make it again: snakemake bundle")
    return chain, chain.bundle(place)


def _is_run(folder: str, run: str, stage: str) -> bool:
    """Whether parts of a path below `models/<task>` are those of a run, and no copy or folder of the user's own."""
    return RUN.fullmatch(run) is not None and stage in MODELS.get(folder.partition(".")[0], ())


def _runs(results: Path, path: Path) -> list[tuple[str, str, str]]:
    """(task, folder, stage) of the runs below a folder of models, each once."""
    receipts = sorted((results / path).rglob("receipt.json"))
    parts = [receipt.parent.relative_to(results / "models").parts for receipt in receipts]
    found = [own for own in parts if len(own) == 4 and _is_run(*own[1:])]
    return list(dict.fromkeys((task, folder, stage) for task, folder, _, stage in found))


def _models(chain: Chain, runs: list[tuple[str, str, str]]) -> tuple[Chain, str]:
    """All runs below a folder of models."""
    last = ""
    for task, folder, stage in runs:
        node = MODELS[folder.partition(".")[0]][stage]
        last = (chain.predict if node.labels else chain.train)(task, folder, stage)
    return chain, last


def _model(records: Records, task: str, folder: str, run: str, stage: str, rest: list[str]) -> tuple[Chain, str]:
    found = RUN.fullmatch(run)
    one = (int(found[1]), int(found[2]))
    chain = Chain(records, runs=[one])
    predicted = records.predictions(task, folder, stage, *one) or {"outputs": {}}
    if rest and rest[0] not in (*_PREDICTED, *predicted["outputs"]):
        return chain, chain.train(task, folder, stage)
    if not rest and not predicted["outputs"]:
        return chain, chain.train(task, folder, stage)
    return chain, chain.predict(task, folder, stage)
