"""Pre-training without labels: how its monitors went, what looks collapsed, whether the modalities find each other."""

from __future__ import annotations

import csv
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histill.methods.train import run_folder, runs
from histill.provenance import read_json
from histill.report.wording import number, plural
from histill.stages import MODELS, PRETRAIN

_PREFIX = "monitor_"


@dataclass(frozen=True)
class Monitor:
    """A figure of pre-training.

    Attributes
    ----------
    pattern
        Start of its names; what follows says of what it is (`rank_slide`: of the slide).
    meaning
        One sentence for readers.
    floor, share
        It looks collapsed below the floor, or below this share of its first value.
    """

    pattern: str
    label: str
    meaning: str
    floor: float | None = None
    share: float | None = None

    @property
    def judged(self) -> bool:
        return self.floor is not None or self.share is not None

    def limit(self, first: float) -> float:
        return self.floor if self.share is None else self.share * first

    @property
    def sign(self) -> str:
        return f"below {self.share:g} of its first value" if self.share is not None else f"below {self.floor:g}"


MONITORS = (
    Monitor(
        "token_variance",
        "Token variance",
        "How much the encoded tiles differ; near 0 all tiles read alike, and any masked one is easily rebuilt.",
        share=0.3,
    ),
    Monitor("variance", "Variance", "How much the encoded patients differ; near 0 all patients read alike."),
    Monitor(
        "(effective_)?rank",
        "Effective rank",
        "How many directions the embeddings of patients make use of; at 1 all patients lie on a line.",
        floor=2.0,
    ),
    Monitor(
        "(posterior_)?kl",
        "Posterior KL",
        "Nats that the style code of a patient holds; at 0 it is the same noise for everybody.",
    ),
    Monitor(
        "(mutual_)?information",
        "Mutual information",
        "Nats that the prototypes tell of a patient; at 0 every patient is given the same ones.",
        floor=0.05,
    ),
    Monitor(
        "marginal_entropy",
        "Marginal entropy",
        "Nats; high where many prototypes are used, 0 where one serves everybody.",
    ),
    Monitor(
        "conditional_entropy",
        "Conditional entropy",
        "Nats; 0 where each patient is given one prototype, high where each is given a little of all.",
    ),
    Monitor(
        "modality_gap",
        "Modality gap",
        "Distance between the mean directions of slides and transcriptomes, 0 to 2; small where both share a space.",
    ),
    Monitor("homophily", "Homophily", "Share of the graph's edges that join patients of one cohort."),
    Monitor(
        r"recall(?P<k>\d+)",
        "Recall@{k}",
        "Share of held-out patients whose other modality is among the {k} nearest; chance is {k} over their number.",
    ),
)


@dataclass(frozen=True)
class Curve:
    """One run.

    Attributes
    ----------
    epochs
        [E].
    values
        Column of `curve.csv` -> [E]; NaN where it was not computed.
    kept
        Row of the epoch whose weights were kept.
    """

    epochs: list[int]
    values: dict[str, list[float]]
    kept: int


def pretraining_facts(
    config: dict[str, Any], results: Path, reports: dict[str, dict[str, Any] | None]
) -> list[dict[str, Any]]:
    """What the page says of each method that is pre-trained; none where nothing of it is there.

    Parameters
    ----------
    reports
        Task -> its evaluation (`histill.evaluation.stage.run`), or None.

    Returns
    -------
    A dict a method: `method`; `runs`; `epochs`, text; `figure` (`uri`, `alt`) or None; `monitors`, each `label`,
    `meaning` and `rows` of what it is `of`, with `first` and `last` (`median`, `low`, `high` over runs), whether it is
    `judged`, and `collapsed`, text; `warnings`; `retrieval`, rows with `task`, `asks`, `finds`, `n`, `estimates`
    (recall@1, 5, 10, mean rank) and `reading`; `note` on them.
    """
    found = []
    for method in config["methods"]["run"]:
        curves = read_curves(config, results, method)
        aligned = {task: report["alignment"] for task, report in reports.items() if report and "alignment" in report}
        retrieval = [row for task, entry in aligned.items() for row in _retrieval(task, method, entry)]
        if curves or retrieval:
            note = next((entry["note"] for entry in aligned.values()), "")
            found.append({"method": method, "retrieval": retrieval, "note": note, **_monitored(method, curves)})
    return found


def read_curves(config: dict[str, Any], results: Path, method: str) -> list[Curve]:
    """Curves of the finished runs of what a method learns of slides and genes without labels, if it does.

    What a comparison (MSRL_H) learns of slides alone is a network of its own, and not shown.
    """
    stages = [stage for stage, node in MODELS[method].items() if not node.labels and "rna" in node.reads]
    if not stages or not (results / "cohort" / "folds.json").exists():
        return []
    folders = [
        run_folder(results, PRETRAIN, method, stage, fold, seed)
        for stage in stages
        for fold, seed in runs(config, results)
    ]
    return [
        _curve(folder) for folder in folders if all((folder / name).exists() for name in ("curve.csv", "receipt.json"))
    ]


def _curve(folder: Path) -> Curve:
    with open(folder / "curve.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    epochs = [int(row["epoch"]) for row in rows]
    values = {name: [float(row[name] or "nan") for row in rows] for name in rows[0] if name != "epoch"}
    figures = read_json(folder / "receipt.json")["figures"]
    kept = next((figures[name] for name in ("best_epoch", "last_epoch") if name in figures), epochs[-1])
    return Curve(epochs, values, epochs.index(kept))


@dataclass
class _Panel:
    """A monitor as it is shown: one column of `curve.csv` for each thing it is of."""

    label: str
    meaning: str
    monitor: Monitor | None
    columns: dict[str, str]


def panels_of(columns: list[str]) -> list[_Panel]:
    """Panels of columns of `curve.csv`, in the order of `MONITORS`; unknown ones last, under their own names."""
    found: dict[str, tuple[int, _Panel]] = {}
    for column in columns:
        name = column.removeprefix(_PREFIX)
        matches = ((m, re.fullmatch(rf"{m.pattern}(?:_(?P<of>\w+))?", name)) for m in MONITORS)
        monitor, match = next(((m, match) for m, match in matches if match), (None, None))
        if monitor is None:
            label, of, meaning = name.replace("_", " ").capitalize(), "", ""
        else:
            label, meaning = (text.format(**match.groupdict()) for text in (monitor.label, monitor.meaning))
            of = (match["of"] or "").replace("_", " ").replace("rna", "RNA")
        place = MONITORS.index(monitor) if monitor else len(MONITORS)
        found.setdefault(label, (place, _Panel(label, meaning, monitor, {})))[1].columns[of] = column
    return [panel for _, panel in sorted(found.values(), key=lambda pair: pair[0])]


def _monitored(method: str, curves: list[Curve]) -> dict[str, Any]:
    """Figure, rows and warnings."""
    if not curves:
        return {"runs": 0, "epochs": "", "figure": None, "monitors": [], "warnings": []}
    from histill.report import pretraining_figures

    named = dict.fromkeys(name for curve in curves for name in curve.values)
    loss = _Panel("Loss", "", None, {"training": "train_loss", "held out": "validation_loss"})
    drawn, groups, warnings = [], [], []
    for panel in (loss, *panels_of([name for name in named if name.startswith(_PREFIX)])):
        rows, series = [], []
        for of, column in panel.columns.items():
            own = [curve for curve in curves if column in curve.values]
            row, limit = _row(of, panel.monitor, column, own)
            rows.append(row)
            series.append((of, [(curve.epochs, curve.values[column]) for curve in own], limit))
            if row["collapsed"]:
                name = f"{panel.label}, {of}," if of else panel.label
                warnings.append(f"Pre-training of {method} looks collapsed: {name} is {row['collapsed']}")
        drawn.append((panel.label, series))
        groups.append({"label": panel.label, "meaning": panel.meaning, "rows": rows})
    lengths = sorted({len(curve.epochs) for curve in curves})
    return {
        "runs": len(curves),
        "epochs": plural(lengths[0], "epoch") if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} epochs",
        "figure": {"uri": pretraining_figures.curves(drawn), "alt": _said(method, groups)},
        "monitors": groups[1:],
        "warnings": warnings,
    }


def _said(method: str, groups: list[dict[str, Any]]) -> str:
    """Medians of all curves at the kept epoch, in words."""
    values = [
        f"{group['label']}{', ' + row['of'] if row['of'] else ''}, {number(row['last']['median'])}"
        for group in groups
        for row in group["rows"]
    ]
    return f"Pre-training of {method} over epochs; at the kept epoch: {'; '.join(values)}."


def _row(of: str, monitor: Monitor | None, column: str, curves: list[Curve]) -> tuple[dict[str, Any], float | None]:
    """Table row of a column over runs, and the mean of the limits below which it looks collapsed."""
    pairs = [(_first(curve.values[column]), curve.values[column][curve.kept]) for curve in curves]
    limits = [monitor.limit(first) for first, _ in pairs] if monitor and monitor.judged else []
    # Not "below the limit": what is not a number is no good value either.
    low = sum(not last >= limit for (_, last), limit in zip(pairs, limits, strict=False))
    row = {
        "of": of,
        "first": _spread([first for first, _ in pairs]),
        "last": _spread([last for _, last in pairs]),
        "judged": bool(limits),
        "collapsed": f"{monitor.sign} in {low} of {plural(len(pairs), 'run')}" if low else "",
    }
    return row, statistics.fmean(limits) if limits else None


def _first(values: list[float]) -> float:
    return next((value for value in values if math.isfinite(value)), math.nan)


def _spread(values: list[float]) -> dict[str, float | None]:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return dict.fromkeys(("median", "low", "high"))
    return {"median": statistics.median(known), "low": min(known), "high": max(known)}


def _retrieval(task: str, method: str, aligned: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "asks": asks,
            "finds": finds,
            "n": entry["n"],
            "estimates": [
                entry["directions"][direction][key] for key in ("recall1", "recall5", "recall10", "mean_rank")
            ],
            "reading": _against_chance(entry["directions"][direction]["recall10"]),
        }
        for entry in aligned["models"]
        if entry["method"] == method
        for direction, asks, finds in (("slide_to_rna", "slide", "RNA"), ("rna_to_slide", "RNA", "slide"))
    ]


def _against_chance(recall: dict[str, Any]) -> str:
    if recall["low"] is None or recall["chance"] == 1:  # no more than ten patients in any fold
        return "cannot be told"
    if recall["low"] > recall["chance"]:
        return "above chance"
    return "below chance" if recall["high"] < recall["chance"] else "at chance"
