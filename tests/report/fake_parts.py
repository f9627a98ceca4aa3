"""Made-up but well-formed parts of an evaluation and an audit: horizons, calibration, decision curves, and so on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from histill.provenance import read_json, write_json

TIMES = [365.0, 730.0, 1095.0]
SURVIVAL_METRICS = (
    ("uno_c", "Uno's C-index", True),
    ("td_auc", "Time-dependent AUC", True),
    ("ibs", "Integrated Brier score", False),
)
CLASS_METRICS = (
    ("f1", "F1 (macro)", True),
    ("average_precision", "Average precision", True),
    ("calibration_slope", "Calibration slope", None),
)


def plain(value: float, *, width: float = 0.06) -> dict[str, Any]:
    """An estimate as the evaluation writes it."""
    folds = [{"fold": fold, "value": value + shift} for fold, shift in enumerate((-0.02, 0.0, 0.02))]
    return {"value": value, "low": value - width, "high": value + width, "folds": folds}


def add_parts(path: Path) -> dict[str, Any]:
    """Write the parts into an evaluation; returns what is now in the file."""
    report = read_json(path)
    survival = report["type"] == "survival"
    known = {metric["key"] for metric in report["metrics"]}
    more = [entry for entry in (SURVIVAL_METRICS if survival else CLASS_METRICS) if entry[0] not in known]
    for key, name, higher in more:
        report["metrics"].append({"key": key, "name": name, "higher_is_better": higher})
        for scored in (report["paired"], *report["own"].values()):
            for by_metric in scored["models"].values():
                by_metric[key] = plain(0.61)
        for entry in [entry for entry in report["comparisons"] if entry["metric"] == report["metrics"][0]["key"]]:
            report["comparisons"].append({**copy.deepcopy(entry), "metric": key})
    for entry in report["comparisons"]:
        test = "bootstrap" if survival else "DeLong"
        entry |= {"p": 0.012, "p_holm": 0.048, "test": test if entry["metric"] == report["metrics"][0]["key"] else None}
    names = [model["name"] for model in report["models"]]
    of = [f"{time:g} days" for time in TIMES[:2]] if survival else [f"class {report['classes'][-1]}"]
    report |= {
        "calibration": {"note": "Groups of like prediction.", "models": {name: _calibrated(of) for name in names}},
        "decision_curves": {"note": "Net benefit of test patients.", "of": [_decided(one, names) for one in of]},
        "subgroups": {"note": "Of the compared patients.", "columns": _subgroups(report, names, survival)},
        "external": {"cohorts": [{"name": "Elsewhere <2>", **copy.deepcopy(report["paired"])}]},
    }
    if survival:
        own = [{"time": time, "auc": plain(0.64), "brier": plain(0.2)} for time in TIMES]
        report["horizons"] = {
            "times": TIMES,
            "unit": "days",
            "note": "By inverse probability of censoring.",
            "models": {},
        }
        report["horizons"]["models"] = {name: copy.deepcopy(own) for name in names}
        report["horizons"]["models"][names[0]][-1] = {"time": TIMES[-1], "auc": None, "brier": None}
    write_json(path, report)
    return report


def _calibrated(of: list[str]) -> list[dict[str, Any]]:
    predicted = [0.1, 0.3, 0.5, 0.8]
    curve = {
        "predicted": predicted,
        "observed": [0.14, 0.27, 0.55, None],
        "low": [0.05, 0.18, 0.41, None],
        "high": [0.25, 0.4, 0.68, None],
        "n": [15, 15, 15, 14],
    }
    slopes = (plain(0.83, width=0.12), None)
    return [
        {"of": one, "slope": slope, "intercept": slope and plain(0.05), "curve": copy.deepcopy(curve)}
        for one, slope in zip(of, slopes, strict=False)
    ]


def _decided(of: str, names: list[str]) -> dict[str, Any]:
    thresholds = np.round(np.linspace(0.05, 0.8, 16), 3)
    everyone = 0.4 - 0.6 * thresholds / (1 - thresholds)
    models = {name: np.maximum(everyone, 0.25 - 0.3 * thresholds).tolist() for name in names}
    return {"of": of, "thresholds": thresholds.tolist(), "all": everyone.tolist(), "models": models}


def _subgroups(report: dict[str, Any], names: list[str], survival: bool) -> list[dict[str, Any]]:
    key = report["metrics"][0]["key"]
    outcome = {"events": 11} if survival else {"classes": dict.fromkeys(report["classes"], 9)}
    levels = [
        {"level": level, "n": n, **outcome, "models": {name: {key: plain(value)} for name in names}, "small": n < 20}
        for level, n, value in (("female", 31, 0.66), ("male", 12, 0.58))
    ]
    levels.append({"level": "other", "n": 1, **outcome, "models": {}, "small": True})
    return [{"column": "sex", "missing": 3, "levels": levels}, {"column": "stage", "missing": 0, "levels": []}]


def write_audit(results: Path, state: str = "ok") -> None:
    """An audit of the cohort that found nothing, or one slide under two patients."""
    finding = {
        "kind": "slide",
        "patients": ["P001", "P007"],
        "items": ["S01", "S07"],
        "folds": "0 and 1",
        "what": "slide 'S01' of patient 'P001' and slide 'S07' of patient 'P007' are one file; tested apart",
        "leak": state == "leak",
    }
    checked = {"patients": 60, "slides": 8, "profiles": 50, "by": ["fingerprint of the slide", "features"]}
    findings = [] if state == "ok" else [finding]
    audit = {"state": state, "checked": checked, "findings": findings, "note": "Pictures were not compared."}
    write_json(results / "cohort" / "audit.json", audit)


def write_benchmark(results: Path, task: str) -> None:
    """A benchmark with the models of the evaluation."""
    report = read_json(results / "evaluation" / f"{task}.json")
    shared = ("task", "type", "classes", "folds", "seeds", "confidence", "note", "warnings", "metrics", "comparisons")
    scored = report["paired"]["models"]
    rows = [
        {"name": model["name"], "reads": model["inputs"], "metrics": scored[model["name"]]}
        for model in report["models"]
    ]
    made = {key: report[key] for key in shared} | {"patients": {"n": report["paired"]["n"]}, "rows": rows}
    made |= {"budget": {"equal": ["Folds and seeds."], "unequal": ["Epochs <b>."]}, "left_out": ["snn", "mcat"]}
    write_json(results / "benchmark" / f"{task}.json", made)
