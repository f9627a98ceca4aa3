"""The model card: README.md of a bundle, with the header that the hub reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from histill.bundle.reference import LIMIT, Reference
from histill.evaluation.horizons import unit
from histill.stages import ModelStage

TEMPLATE = "card.md.j2"
_MARKDOWN = re.compile(r"[\\|`\[\]]")
_PIPELINES = {"classification": "image-classification"}  # the hub has none for survival


def render(
    *,
    about: dict[str, Any],
    licence: str,
    node: ModelStage,
    evaluation: dict[str, Any],
    name: str,
    reference: Reference,
    seconds: float,
) -> str:
    """The card's Markdown.

    Parameters
    ----------
    about
        What goes into bundle.json.
    evaluation
        Content of `evaluation/<task>.json`; `name` is the model's in it.
    seconds
        That training took.
    """
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": _interval, "cell": _cell, "duration": _duration, "number": "{:g}".format}
    metrics = evaluation["metrics"]
    return environment.get_template(TEMPLATE).render(
        header=yaml.safe_dump(_header(about, licence), sort_keys=False, allow_unicode=True),
        about=about,
        licence=licence,
        name=name,
        unit=unit(about["task"]["time"] or ""),
        learns_from=sorted({*node.learns_from, *(["rna"] if _taught_by_genes(about) else [])}, reverse=True),
        buffered=about["kind"] == "msrl",
        own=evaluation["own"][name],
        metrics=metrics,
        names={metric["key"]: metric["name"] for metric in metrics},
        horizons=evaluation.get("horizons", {}).get("models", {}).get(name, []),
        comparisons=[c for c in evaluation["comparisons"] if c["a"] == name and c["metric"] == metrics[0]["key"]],
        # Names of cohorts may be those of hospitals.
        external=[cohort for cohort in _external(evaluation) if name in cohort["models"]],
        repeats=evaluation["repeats"],
        confidence=f"{100 * evaluation['confidence']:g} %",
        draws=evaluation["bootstrap"],
        calibration=float(reference.calibrate.slope[0]),
        threshold=reference.threshold,
        limit=f"{100 * LIMIT:g} %",
        seconds=seconds,
        folds=len({member["fold"] for member in about["members"]}),
        seeds=len({member["seed"] for member in about["members"]}),
    )


def _header(about: dict[str, Any], licence: str) -> dict[str, Any]:
    task, encoder = about["task"], about["encoder"]
    tags = ["histill", "computational-pathology", "whole-slide-images", task["type"], about["method"]]
    header = {"library_name": "histill", "license": licence}
    if pipeline := _PIPELINES.get(task["type"]):
        header["pipeline_tag"] = pipeline
    if encoder["hub"]:
        header["base_model"] = encoder["hub"]
    return {**header, "tags": tags}


def _taught_by_genes(about: dict[str, Any]) -> bool:
    """Whether a stage that this one stands on learned from transcriptomes."""
    from histill.stages import MODELS

    stages = MODELS[about["method"]]

    def reads_genes(stage: str) -> bool:
        return "rna" in stages[stage].learns_from or any(map(reads_genes, stages[stage].after))

    return reads_genes(about["stage"])


def _external(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    return (evaluation.get("external") or {}).get("cohorts", [])


def _interval(estimate: dict[str, Any]) -> str:
    """'0.71 (0.62 to 0.80)'."""
    if estimate["value"] is None:
        return "not defined"
    bounds = estimate["low"], estimate["high"]
    between = "" if None in bounds else f" ({bounds[0]:.2f} to {bounds[1]:.2f})"
    return f"{estimate['value']:.2f}{between}"


def _cell(value: Any) -> str:
    """Text that stays in its cell of a table, and is neither HTML nor a link, a picture or code."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(str(value).split())).replace("<", "&lt;")


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
