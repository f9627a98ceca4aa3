"""The benchmark of a task: all methods on the same patients, and what distillation is worth."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from histill.errors import ConfigError, HistillError
from histill.evaluation import benchmark_figure, benchmark_text, budget, receipts, stage
from histill.evaluation.predictions import Model, expected_models
from histill.methods import benchmark
from histill.methods.train import runs
from histill.provenance import atomic_file, write_json
from histill.stages import MODELS

STUDENT = "student"
DISTILLATION = ("disentangled student", "wsi-only")
GROUPS = ("slide", "rna", "slide+rna")
_SHARED = (
    *("task", "type", "classes", "folds", "repeats", "seeds", "bootstrap"),
    *("confidence", "note", "warnings", "metrics"),
)


def run(*, task: str, config: dict[str, Any], results: str | Path) -> dict[str, Any]:
    """Score every method of the benchmark on common patients; write `benchmark/<task>.json`, `.tsv`, `.md`, `.png`.

    Folds, seeds, metrics, resamples and comparisons are those of the evaluation (`histill.evaluation.stage`), whose own
    files stay as they are.

    Returns
    -------
    What is written as JSON: of the evaluation `task` to `metrics`; `patients`, who all models are compared on; `rows`,
    a model each, by what they read: `name`, `method`, `stage`, `reads`, `learns_from`, `student` (learned from RNA,
    reads the slide alone), `metrics`, key -> `value`, `low`, `high`, `folds`, `seeds`, and `cost`
    (`histill.evaluation.budget.cost`); `comparisons`, differences as in the evaluation; `distillation`, those of the
    disentangled student and the same network without a teacher, by metric (None where one of the two is not there);
    `external`, cohorts that are only tested, as in the evaluation;
    `budget`, `equal` and `unequal`, sentences; `left_out`, methods.

    Raises
    ------
    ConfigError
        The benchmark of the config cannot be made.
    HistillError
        Predictions are missing or cannot be scored, or all models have no patient in common.
    """
    if problems := benchmark.check(config):
        raise ConfigError(problems)
    results = Path(results)
    own = benchmark.configure(config)
    scored = stage.evaluate(task=task, config=own, results=results)
    if not scored["paired"]["n"]:
        raise HistillError(
            f"task '{task}': there is no test patient with a known outcome that every model predicted",
            mend="name methods in benchmark.methods that read what the patients have",
        )
    names = benchmark.methods(config)
    report = {
        **{key: scored[key] for key in _SHARED},
        "patients": {key: scored["paired"][key] for key in ("n", "events", "classes") if key in scored["paired"]},
        "rows": _rows(scored, results, config),
        "comparisons": scored["comparisons"],
        "distillation": _distillation(scored["comparisons"]),
        "external": scored["external"],
        "budget": {"equal": budget.equal(config), "unequal": budget.unequal(config, names)},
        "left_out": benchmark.left_out(config),
    }
    place = results / "benchmark" / task
    _write_table(place.with_name(f"{task}.tsv"), report)
    benchmark_text.write(place.with_name(f"{task}.md"), report)
    benchmark_figure.write(place.with_name(f"{task}.png"), report)
    write_json(place.with_name(f"{task}.json"), report)
    receipts.write(
        results,
        f"benchmark/{task}",
        stage="benchmark",
        task=task,
        recipe=benchmark.table_recipe(config, task=task),
        predictions=(m.path(results, task, *one) for m in expected_models(own) for one in runs(config, results)),
        suffixes=(".json", ".tsv", ".md", ".png"),
    )
    return report


def _rows(scored: dict[str, Any], results: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    every = runs(config, results)
    rows = []
    for entry in sorted(scored["models"], key=lambda entry: GROUPS.index(entry["inputs"])):
        model = Model(entry["method"], entry["stage"])
        rows.append(
            {
                "name": model.name,
                "method": model.method,
                "stage": model.stage,
                "reads": model.inputs,
                "learns_from": _learns_from(model.method, model.stage),
                "student": model.stage == STUDENT,
                "metrics": scored["paired"]["models"][model.name],
                "cost": budget.cost(results, scored["task"], model, every),
            }
        )
    return rows


def _learns_from(method: str, name: str) -> str:
    """What a model, or a stage that it stands on, learns from."""
    node = MODELS[method][name]
    before = [_learns_from(method, own) for own in node.after]
    known = "+".join([*node.learns_from, *before])
    return "+".join(part for part in ("slide", "rna") if part in known)


def _distillation(comparisons: list[dict[str, Any]]) -> dict[str, Any] | None:
    own = {entry["metric"]: entry for entry in comparisons if (entry["a"], entry["b"]) == DISTILLATION}
    return {"a": DISTILLATION[0], "b": DISTILLATION[1], "metrics": own} if own else None


def _write_table(path: Path, report: dict[str, Any]) -> None:
    """A row a model, then a row a difference; every metric with its interval, of differences with both p values."""
    keys = [metric["key"] for metric in report["metrics"]]
    parts = {"": "value", ":low": "low", ":high": "high", ":p": "p", ":p_holm": "p_holm"}
    rows = [("model", row["name"], row["reads"], row["learns_from"], row["metrics"]) for row in report["rows"]]
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in report["comparisons"]:
        pairs.setdefault((entry["a"], entry["b"]), {})[entry["metric"]] = entry
    rows += [("difference", f"{a} - {b}", "", "", by_metric) for (a, b), by_metric in pairs.items()]
    with atomic_file(path) as part, open(part, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        head = ["task", "row", "name", "reads", "learns_from", "n"]
        writer.writerow([*head, *(f"{key}{suffix}" for key in keys for suffix in parts)])
        for kind, name, reads, learns_from, by_metric in rows:
            values = [by_metric.get(key, {}).get(field) for key in keys for field in parts.values()]
            start = [report["task"], kind, name, reads, learns_from, report["patients"]["n"]]
            writer.writerow([*start, *("" if value is None else f"{value:.6g}" for value in values)])
