"""The benchmark: which methods are trained side by side, and what each is given.

All of them have the folds, seeds, features, outcomes and inner splits of the config. The benchmark is made beside what
`methods.run` asks for: models of both are the same files, and nothing is trained twice.
"""

from __future__ import annotations

from typing import Any

from histill.provenance import digest
from histill.stages import MODELS, needs_rna, recipe

VERSION = 1  # of table and figure; raised when they hold something else for the same predictions
RECEIPT = "benchmark-{task}.json"  # of the predictions, below receipts/


def methods(config: dict[str, Any]) -> list[str]:
    """Methods of the benchmark, in the order of `histill.stages.MODELS`.

    Where `benchmark.methods` is null, all that the cohort allows: without transcriptomes, those that need none.
    """
    asked = config["benchmark"]["methods"]
    if asked is None:
        return [method for method in MODELS if has_rna(config) or not needs_rna(method)]
    return [method for method in MODELS if method in asked]


def left_out(config: dict[str, Any]) -> list[str]:
    """Methods that the benchmark lacks since there are no transcriptomes."""
    if config["benchmark"]["methods"] is not None:
        return []
    return [method for method in MODELS if method not in methods(config)]


def has_rna(config: dict[str, Any]) -> bool:
    """Whether the cohort of a config has transcriptomes."""
    return "demo" in config or bool(config["cohort"]["expression"])


def check(config: dict[str, Any]) -> list[str]:
    """Why the benchmark of a config cannot be made, one line each; nothing where it can."""
    problems = []
    if not config["tasks"]:
        problems.append("config key 'tasks': there is no task to make the benchmark for; add one")
    if not has_rna(config):
        problems += [
            f"config key 'benchmark.methods': '{method}' needs transcriptomes; name the table in cohort.expression, "
            "or leave the method out"
            for method in methods(config)
            if needs_rna(method)
        ]
    return problems


def configure(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the methods of the benchmark in place of those of `methods.run`."""
    return {**config, "methods": {**config["methods"], "run": methods(config)}}


def training_stages(config: dict[str, Any]) -> list[tuple[str, str]]:
    """(method, stage) of everything the benchmark trains."""
    return [(method, stage) for method in methods(config) for stage in MODELS[method]]


def holds_the_run(config: dict[str, Any]) -> bool:
    """Whether all that `methods.run` names is in the benchmark too."""
    return set(config["methods"]["run"]) <= set(methods(config))


def table_recipe(config: dict[str, Any], *, task: str) -> str:
    """Recipe of the table of a task."""
    scores = recipe("evaluate", config, task=task)
    return digest({"stage": "benchmark", "version": VERSION, "scores": scores, "methods": methods(config)})
