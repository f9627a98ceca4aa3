"""The benchmark as a page of Markdown: one table, the differences, and what the models were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.provenance import atomic_file

_READS = {"slide": "slide", "rna": "RNA", "slide+rna": "slide, RNA"}
_NEW = "value of distillation"
_BETTER = {True: "", False: " (lower is better)", None: " (1 is best)"}


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the page of a benchmark (`histill.evaluation.benchmark.run`)."""
    with atomic_file(path) as part:
        part.write_text(page(report), encoding="utf-8")


def page(report: dict[str, Any]) -> str:
    """The text of `write`."""
    sections = [
        _head(report),
        _models(report),
        _differences(report),
        _external(report),
        _budget(report),
        _notes(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(report: dict[str, Any]) -> str:
    who = _who(report["patients"])
    folds = _count(len(report["folds"]), "fold")
    if report["repeats"] > 1:
        folds = f"{folds} of {report['repeats']} repeats"
    interval = f"{100 * report['confidence']:g} %"
    return (
        f"# Benchmark: {report['task']}\n\n{who}, the same for all models; {folds}, "
        f"{_count(len(report['seeds']), 'seed')}. In brackets: {interval} interval."
    )


def _who(patients: dict[str, Any]) -> str:
    if "events" in patients:
        return f"{patients['n']} test patients with {patients['events']} events"
    classes = ", ".join(f"{count} {name}" for name, count in patients["classes"].items())
    return f"{patients['n']} test patients ({classes})"


def _models(report: dict[str, Any]) -> str:
    metrics = report["metrics"]
    head = ["Model", "Reads", "Learned from", *(_title(metric) for metric in metrics)]
    rows = []
    for row in report["rows"]:
        name = f"**{row['name']}** ◆" if row["student"] else row["name"]
        values = [_value(row["metrics"][metric["key"]]) for metric in metrics]
        rows.append([name, _READS[row["reads"]], _READS[row["learns_from"]], *values])
    if found := report["distillation"]:
        own = [found["metrics"].get(metric["key"]) for metric in metrics]
        values = [_value(estimate, signed=True) if estimate else "" for estimate in own]
        rows.append([f"*{_NEW}*: {found['a']} − {found['b']}", "", "", *values])
    lines = [_table(head, rows, left=3)]
    if any(row["student"] for row in report["rows"]):
        lines.append("◆ a student: it learned from transcriptomes, and reads the slide alone.")
    if not found:
        lines.append(
            f"There is no row for the {_NEW}: it is the disentangled student minus wsi-only, and the benchmark lacks "
            "one of the two."
        )
    return "\n\n".join(lines)


def _differences(report: dict[str, Any]) -> str:
    rows = [
        [
            f"{entry['a']} − {entry['b']}",
            entry["meaning"],
            _title(metric),
            _value(entry, signed=True),
            _p(entry["p"]),
            _p(entry["p_holm"]),
        ]
        for metric in report["metrics"]
        for entry in report["comparisons"]
        if entry["metric"] == metric["key"]
    ]
    if not rows:
        return ""
    head = ["Difference", "What it tells", "Metric", "Value", "p", "p (Holm)"]
    told = "Above 0 the first is better; of a metric where lower is better, below 0."
    return f"## Differences\n\n{told}\n\n" + _table(head, rows, left=3)


def _external(report: dict[str, Any]) -> str:
    """A table a cohort that is only tested."""
    metrics, sections = report["metrics"], []
    for cohort in (report["external"] or {"cohorts": []})["cohorts"]:
        rows = [
            [name, *(_value(by_metric[metric["key"]]) for metric in metrics)]
            for name, by_metric in cohort["models"].items()
        ]
        said = f"{_who(cohort)}, in no training set."
        table = _table(["Model", *map(_title, metrics)], rows, left=1)
        sections.append(f"## External: {cohort['name']}\n\n{said}\n\n{table}")
    return "\n\n".join([*sections, report["external"]["note"]]) if sections else ""


def _budget(report: dict[str, Any]) -> str:
    told, rows = report["budget"], []
    for row in report["rows"]:
        cost = row["cost"]
        counts = [_whole(cost[name]) for name in ("patients", "epochs", "seconds", "numbers")]
        rows.append([row["name"], *counts])
    head = ["Model", "Patients", "Epochs", "Seconds", "Numbers"]
    return "\n\n".join(
        [
            "## Budget",
            "Equal for all:\n\n" + _list(told["equal"]),
            "Not equal:\n\n" + _list(told["unequal"]),
            "Medians over folds and seeds: patients learned from, epochs of the model's own training, seconds of "
            "training with all that it stands on (on the machine that trained it), and numbers in its file.",
            _table(head, rows, left=1),
        ]
    )


def _notes(report: dict[str, Any]) -> str:
    lines = [report["note"]]
    if report["left_out"]:
        lines.append(f"Left out, as there are no transcriptomes: {', '.join(report['left_out'])}.")
    if report["warnings"]:
        lines.append("Warnings:\n\n" + _list(report["warnings"]))
    return "## Notes\n\n" + "\n\n".join(lines)


def _title(metric: dict[str, Any]) -> str:
    return metric["name"] + _BETTER[metric["higher_is_better"]]


def _value(estimate: dict[str, Any], *, signed: bool = False) -> str:
    if estimate["value"] is None:
        return "not defined"
    form = "+.3f" if signed else ".3f"
    own = [estimate[name] for name in ("value", "low", "high")]
    value, low, high = ("" if number is None else format(number, form).replace("-", "−") for number in own)
    return f"{value} ({low} to {high})" if low else value


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: list[str], rows: list[list[str]], *, left: int) -> str:
    """A table whose first columns are aligned to the left, the others to the right."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
