"""What the page was made with and how to make it again: recipes, digests of inputs, config, commands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from histill.provenance import Receipt, digest, read_json
from histill.redact import redact
from histill.report.wording import plural
from histill.stages import MODELS, PRETRAIN, STAGES, model_recipe, predictors, recipe

# Of an encoder's recipe: what says where it is from and what it is given; all the rest is in the stores.
_ENCODER = (
    "name", "source", "licence", "hub", "revision", "weights", "dim", "mpp", "input", "resize", "crop", "interpolation",
    "mean", "std", "pooling", "precision", "stain", "off_recipe",
)  # fmt: skip


def recipes(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Recipe digest of every stage and model of the run."""
    shared = [name for name, stage in STAGES.items() if not any("{task}" in key for key in stage.keys)]
    rows = [(name, recipe(name, config)) for name in shared if "predict" not in STAGES[name].after]
    for method in config["methods"]["run"]:
        unlabelled = [stage for stage in MODELS[method] if stage not in predictors(method)]
        rows += [(f"{method} {stage}", model_recipe(method, stage, config, task=PRETRAIN)) for stage in unlabelled]
    for task in config["tasks"]:
        for method in config["methods"]["run"]:
            rows += [
                (f"{task}: {method} {stage}", model_recipe(method, stage, config, task=task))
                for stage in predictors(method)
            ]
        rows.append((f"{task}: evaluate", recipe("evaluate", config, task=task)))
    return rows


def inputs(results: Path, receipts: dict[str, list[Receipt]]) -> list[tuple[str, str, str]]:
    """What went in: (what, how much, digest). Slides and features are summed up in one digest each."""
    rows = []
    for stage, what in (("inspect", "slides"), ("features", "feature stores")):
        of = {"inspect": lambda receipt: receipt.inputs, "features": lambda receipt: receipt.outputs}[stage]
        found = {receipt.slide: of(receipt) for receipt in receipts.get(stage, ()) if of(receipt)}
        if found:
            rows.append((what, plural(len(found), "slide"), digest(found)))
    for stage, key in (("transcriptome", "inputs"), ("cohort", "outputs")):
        path = results / "receipts" / f"{stage}.json"
        files = read_json(path).get(key, {}) if path.exists() else {}
        rows += [(f"{stage}: {name}", "file", value) for name, value in files.items() if isinstance(value, str)]
    return rows


def encoder_recipe(config: dict[str, Any], results: Path) -> list[tuple[str, str]]:
    """The encoder's recipe as the first finished store holds it; empty where there is none."""
    from histill.features.store import group_names, read_recipe

    stores = sorted((results / "features" / config["features"]["encoder"]).glob("*.zarr"))
    if not stores or not (groups := group_names(stores[0])):
        return []
    found = read_recipe(stores[0], groups[0])
    known = [key for key in _ENCODER if key in found] or sorted(found)
    return [(key, _plain(found[key])) for key in known if found[key] not in (None, [], "")]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def commands(config: dict[str, Any]) -> list[tuple[str, str]]:
    """(What for, command) to make the page again from the same sheets; the config is the one that the page shows."""
    run = "snakemake --cores all --configfile config.yaml"
    results = redact(config["results"])
    parts = [
        ("The same versions of everything", "pip install -e . -c constraints.txt"),
        ("Is everything there that the config names? This runs nothing", "histill validate --config config.yaml"),
        ("Everything, up to this page; what is done is not done again", run),
    ]
    parts += [
        (f"Only task {task}: train, predict, evaluate", f"{run} {shlex.quote(f'{results}/evaluation/{task}.json')}")
        for task in config["tasks"]
    ]
    archive = "snakemake --cores 1 --configfile config.yaml --report report.zip"
    return [*parts, ("Snakemake's own account of the jobs, with this page inside", archive)]


def config_text(config: dict[str, Any]) -> str:
    """The effective config as YAML, without machine paths."""
    import yaml

    return yaml.safe_dump(redact(config), sort_keys=False, allow_unicode=True)
