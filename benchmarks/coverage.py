"""Do 95 % intervals hold the truth in 95 % of cohorts, and do tests of no difference find one in 5 %?

    python benchmarks/coverage.py [--simulations 2000] [--patients 200 400] [--folds 5] [--draws 1000] [--jobs 2]

Cohorts are drawn from a known truth: what a model sees of a patient is the patient's own risk and noise. Models are
fixed, as intervals take them to be. Each cohort is scored as a run is (`histill.evaluation.scoring`): folds, censoring
weights of the training patients, resamples within folds. The truth of a metric is its mean over 100 cohorts of 4,000
patients; of average precision, which is higher in few patients than in many, it is the mean over all cohorts of a size.
`below` and `above` are the shares of intervals that lie wholly below and above it; the Monte-Carlo error of a share of
95 % is 0.5 % with 2,000 simulations. `false findings` is the share of p values below 0.05 between two models that see
equally much.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from multiprocessing import get_context

import numpy as np

from histill.evaluation import horizons
from histill.evaluation.calibration import calibrate
from histill.evaluation.comparisons import delong_p
from histill.evaluation.horizons import Horizons
from histill.evaluation.predictions import Curves, Model, Outcomes, Predictions
from histill.evaluation.scoring import METRICS, horizon_key, score

TIMES = (12.0, 24.0, 36.0)
SIGNALS = {"abmil": 1.0, "wsi-only": 0.6, "meanpool": 1.0}  # what models see, by the method whose name they borrow
COMPARED, EQUAL = ("abmil", "wsi-only"), ("abmil", "meanpool")
TRUTH_PATIENTS = 4_000
CONFIDENCE = 0.95
OF_SIZE = ("average_precision", "difference of average_precision")  # numbers whose truth depends on the size of a fold


def cohort(kind: str, patients: int, folds: int, seed: int) -> tuple[list[Predictions], Outcomes]:
    """A cohort of one draw of patients, and what every model predicts of them."""
    rng = np.random.default_rng([seed, patients, kind == "survival"])
    names = [f"P{number:05d}" for number in range(patients)]
    own = rng.standard_normal(patients)
    fold = rng.permutation(np.arange(patients) % folds)
    assignment = {name: [int(number)] for name, number in zip(names, fold, strict=True)}
    if kind == "survival":
        time, censored = rng.exponential(30 * np.exp(-0.8 * own)), rng.uniform(6, 90, patients)
        values = list(zip(np.minimum(time, censored).tolist(), (time <= censored).astype(int).tolist(), strict=True))
    else:
        values = (rng.random(patients) < 1 / (1 + np.exp(0.4 - 1.3 * own))).astype(int).tolist()
    outcomes = Outcomes(kind, dict(zip(names, values, strict=True)), assignment, ("no", "yes"))
    models = [_model(method, signal, kind, own, names, fold, rng) for method, signal in SIGNALS.items()]
    return models, outcomes


def _model(method, signal, kind, own, names, fold, rng) -> Predictions:
    """Predictions that are somewhat too extreme."""
    seen = (signal * own + rng.standard_normal(len(own))) * signal / (signal**2 + 1)
    model = Predictions(Model(method, "train"))
    survival = np.exp(-np.outer(np.exp(1.2 * seen), TIMES) / 30)
    probability = 1 / (1 + np.exp(0.4 - 1.8 * seen))
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        if kind == "survival":
            model.test[number, 0] = {names[row]: seen[row : row + 1] for row in rows}
            model.survival[number, 0] = Curves(np.array(TIMES), {names[row]: survival[row] for row in rows})
        else:
            model.test[number, 0] = {names[row]: np.array([1 - probability[row], probability[row]]) for row in rows}
    return model


def estimates(kind: str, patients: int, folds: int, draws: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Name of a number -> value and interval, of one cohort; of `p:` numbers the p value alone, thrice."""
    models, outcomes = cohort(kind, patients, folds, seed)
    times = Horizons(TIMES, {fold: horizons.training_censoring(outcomes, fold) for fold in outcomes.folds})
    scores = score(models, set(outcomes.values), outcomes, [0], draws, seed, times if kind == "survival" else None)
    keys = [metric.key for metric in METRICS[kind]]
    keys += [horizon_key(name, TIMES[1]) for name in ("auc", "brier")] if kind == "survival" else []
    of = scores.estimates
    found = {key: (of["abmil"][key].value, *of["abmil"][key].interval(CONFIDENCE)) for key in keys}
    for key in keys:
        if key == "calibration_slope":  # best at 1: a difference says nothing
            continue
        difference = of[COMPARED[0]][key] - of[COMPARED[1]][key]
        found[f"difference of {key}"] = (difference.value, *difference.interval(CONFIDENCE))
        found[f"p: bootstrap, {key}"] = ((of[EQUAL[0]][key] - of[EQUAL[1]][key]).p_value(),) * 3
    if kind == "survival":
        described = calibrate(models[:1], scores.sample, outcomes, times, [0], CONFIDENCE, "months")
        entry = described["models"]["abmil"][1]
        for name in ("slope", "intercept"):
            plain = entry[name] or {}
            numbers = [plain.get(part) for part in ("value", "low", "high")]
            found[f"calibration {name} at 24"] = tuple(np.nan if x is None else x for x in numbers)
    else:
        by_name = {model.model.name: model for model in models}
        p = delong_p(*(by_name[name] for name in EQUAL), scores.patients, outcomes, [0])
        found["p: DeLong, auc"] = (np.nan if p is None else p,) * 3
    return found


def _one(arguments: tuple) -> dict[str, tuple[float, float, float]]:
    return estimates(*arguments)


def lines(kind: str, patients: int, folds: int, draws: int, simulations: int, truth: dict, pool) -> Iterator[str]:
    """Rows of the table of one kind of task and size of cohort."""
    tasks = [(kind, patients, folds, draws, seed) for seed in range(simulations)]
    runs = pool.map(_one, tasks, chunksize=10)
    for name in runs[0]:
        value, low, high = np.array([run[name] for run in runs]).T
        known = np.isfinite(low) & np.isfinite(high)
        head = f"| {kind} | {patients} | {name} |"
        if name.startswith("p: "):
            yield f"{head} | | {np.mean(value[known] < 0.05):.1%} false findings | | | {known.mean():.1%} |"
            continue
        low, high, value = low[known], high[known], value[known]
        true = value.mean() if name in OF_SIZE else truth[name]
        inside = np.mean((low <= true) & (true <= high))
        shares = f"{inside:.1%} | {np.mean(high < true):.1%} | {np.mean(low > true):.1%}"
        yield f"{head} {true:.4f} | {value.mean():.4f} | {shares} | {known.mean():.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2_000)
    parser.add_argument("--patients", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--truth", type=int, default=100, help="cohorts of 4,000 patients that the truth is taken from")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    print("| task | patients | number | truth | mean | held | below | above | defined |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with get_context("spawn").Pool(given.jobs) as pool:
        for kind in METRICS:
            large = [(kind, TRUTH_PATIENTS, 2, 2, 10**6 + seed) for seed in range(given.truth)]
            runs = pool.map(_one, large, chunksize=5)
            truth = {name: float(np.mean([run[name][0] for run in runs])) for name in runs[0]}
            for patients in given.patients:
                rows = lines(kind, patients, given.folds, given.draws, given.simulations, truth, pool)
                for line in rows:
                    print(line, flush=True)


if __name__ == "__main__":
    main()
