"""Folds that preserve sites: all patients of a site are in one fold, with outcomes as even as that allows.

A slide tells its site (scanner, stain, section), and a site tells much of the outcome of its patients. Where patients
of one site are trained on and tested, a model can score by knowing the site: Howard et al., "The impact of
site-specific digital histology signatures on deep learning model accuracy and bias", Nature Communications 2021;
12:4423, who balance outcomes by quadratic programming. Here the sum of absolute deviations is minimised, which is a
mixed-integer linear program: exactly where sites are few, else by a search from many starts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from histill.cohort.folds import generator_of
from histill.errors import HistillError

EXACT_BINARIES = 80  # sites times folds; above, a proof takes minutes, and the search is as good
_NODES = 2_000  # of branch and bound: a limit of time would give other folds on another machine
_STARTS = 24
_BETTER = 1e-9


@dataclass
class Partition:
    """Sites in folds.

    Attributes
    ----------
    fold
        Site -> fold, from 0.
    imbalance
        Mean over folds and outcomes (the number of patients is one of them) of |n - even| / even; 0 is even.
    optimal
        Whether no partition is better.
    """

    fold: dict[str, int]
    imbalance: float
    optimal: bool


def partitions(
    site: dict[str, str], outcomes: dict[str, list[str]], *, n: int, seed: int, repeats: int = 1
) -> list[Partition]:
    """A partition of the sites for each repeat, all different where there are enough of them.

    Parameters
    ----------
    site
        Patient -> site.
    outcomes
        Patient -> what is to be even over the folds, such as `dx: tumour`; any number of texts.
    n
        Folds.

    Raises
    ------
    HistillError
        When there are fewer sites than folds.
    """
    names, counts = _count(site, outcomes)
    if len(names) < n:
        raise HistillError(
            f"folds.sites: preserve: {n} folds need as many sites; there are {len(names)} ({', '.join(names)})",
            mend="lower folds.n, or set folds.sites: ignore",
        )
    found: list[Partition] = []
    taken: set[frozenset] = set()
    for repeat in range(repeats):
        generator = generator_of(seed, repeat)
        best = exact(counts, n) if repeat == 0 and len(names) * n <= EXACT_BINARIES else None
        fold, optimal = best if best and best[1] else (search(counts, n, generator, taken), False)
        if best and imbalance(counts, best[0], n) < imbalance(counts, fold, n):
            fold = best[0]
        taken.add(_shape(fold, n))
        fold = generator.permutation(n)[fold]
        found.append(Partition(dict(zip(names, fold.tolist(), strict=True)), imbalance(counts, fold, n), optimal))
    return found


def describe(
    partition: Partition, site: dict[str, str], outcomes: dict[str, list[str]], *, first: int
) -> list[dict[str, Any]]:
    """What is in each fold: `fold` (counted from `first`), `sites`, `patients`, `outcomes` (text -> patients)."""
    members: dict[int, list[str]] = {}
    for patient, own in site.items():
        members.setdefault(partition.fold[own], []).append(patient)
    return [
        {
            "fold": first + fold,
            "sites": sorted({site[patient] for patient in own}),
            "patients": len(own),
            "outcomes": dict(sorted(Counter(text for patient in own for text in outcomes[patient]).items())),
        }
        for fold, own in sorted(members.items())
    ]


def warnings(folds: list[dict[str, Any]], site: dict[str, str], *, n: int) -> list[str]:
    """How even the folds of one repeat are (`describe`), and sites that hold more patients than a fold should."""
    even = len(site) / n
    sizes = [fold["patients"] for fold in folds]
    said = (
        f"folds that preserve {len(set(site.values()))} sites: {min(sizes)} to {max(sizes)} patients (even: {even:.1f})"
    )
    totals = Counter(text for fold in folds for text, count in fold["outcomes"].items() for _ in range(count))
    shares = [
        (abs(fold["outcomes"].get(text, 0) - total / n) / (total / n), text, fold)
        for text, total in sorted(totals.items())
        for fold in folds
    ]
    if shares:
        _, text, fold = max(shares, key=lambda share: share[0])
        said += f"; least even: {text}, {fold['outcomes'].get(text, 0)} patients in fold {fold['fold']}"
        said += f" (even: {totals[text] / n:.1f})"
    large = [
        f"site '{name}' has {count} patients, more than an even fold ({even:.1f}); its fold is larger than the others"
        for name, count in sorted(Counter(site.values()).items())
        if count > even
    ]
    return [said, *large]


def imbalance(counts: np.ndarray, fold: np.ndarray, n: int) -> float:
    """See `Partition`; `counts` [sites, outcomes] of patients, `fold` [sites]."""
    even = counts.sum(0) / n
    return float(np.mean(np.abs(_sums(counts, fold, n) - even) / even))


def exact(counts: np.ndarray, n: int) -> tuple[np.ndarray, bool] | None:
    """The best partition and whether it is proven to be; None where none was found within the limit of nodes.

    Parameters
    ----------
    counts
        [S, C] patients by site and outcome; every outcome occurs.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack, identity, kron

    sites, kinds = counts.shape
    even = np.repeat(counts.sum(0) / n, n)
    order = np.argsort(-counts[:, 0], kind="stable")
    # Columns: x[site, fold], then the deviation d[outcome, fold] >= |n - even|.
    place = kron(csr_array(counts[order].T), identity(n))
    slack = identity(kinds * n)
    none = csr_array((sites, kinds * n))
    once = hstack([kron(identity(sites), np.ones((1, n))), none])
    filled = hstack([kron(np.ones((1, sites)), identity(n)), csr_array((n, kinds * n))])
    # Folds can be swapped: the i-th site needs none beyond the i-th.
    upper = np.concatenate([np.tril(np.ones((sites, n))).ravel(), np.full(kinds * n, np.inf)])
    solved = milp(
        c=np.concatenate([np.zeros(sites * n), 1 / even]),
        integrality=np.concatenate([np.ones(sites * n), np.zeros(kinds * n)]),
        bounds=Bounds(0, upper),
        constraints=[
            LinearConstraint(csr_array(once), 1, 1),
            LinearConstraint(csr_array(filled), 1, np.inf),
            LinearConstraint(csr_array(hstack([place, -slack])), -np.inf, even),
            LinearConstraint(csr_array(hstack([place, slack])), even, np.inf),
        ],
        options={"node_limit": _NODES},
    )
    if solved.x is None:
        return None
    fold = np.empty(sites, dtype=np.int64)
    fold[order] = solved.x[: sites * n].reshape(sites, n).argmax(1)
    return fold, solved.status == 0


def search(counts: np.ndarray, n: int, generator: np.random.Generator, taken: set[frozenset]) -> np.ndarray:
    """The best partition of several descents from random starts, other than those `taken` if there is another."""
    weight = 1 / counts.sum(0)
    starts = max(2, min(_STARTS, 2 * EXACT_BINARIES // len(counts)))
    found = [_descend(counts, _start(counts, n, weight, generator), n, weight) for _ in range(starts)]
    order = sorted(
        range(starts), key=lambda index: (_shape(found[index], n) in taken, imbalance(counts, found[index], n))
    )
    return found[order[0]]


def _start(counts: np.ndarray, n: int, weight: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Large sites first, in an order that is shaken, each to the fold where it does least harm."""
    order = np.argsort(-counts[:, 0] * generator.uniform(0.5, 1.5, len(counts)), kind="stable")
    even = counts.sum(0) / n
    fold = np.zeros(len(counts), dtype=np.int64)
    sums = np.zeros((n, counts.shape[1]))
    for place, site in enumerate(order):
        harm = (np.abs(sums + counts[site] - even) - np.abs(sums - even)) @ weight
        fold[site] = place if place < n else int(harm.argmin())
        sums[fold[site]] += counts[site]
    return fold


def _descend(counts: np.ndarray, fold: np.ndarray, n: int, weight: np.ndarray) -> np.ndarray:
    """Move sites, and swap pairs of them, as long as that helps; no fold loses its last site."""
    fold, even = fold.copy(), counts.sum(0) / n
    while True:
        sums = _sums(counts, fold, n)
        cost = np.abs(sums - even) @ weight
        best = (-_BETTER, None)
        alone = np.bincount(fold, minlength=n)[fold] == 1
        for target in range(n):
            gain = (
                np.abs(sums[target] + counts - even) @ weight
                + np.abs(sums[fold] - counts - even) @ weight
                - cost[target]
                - cost[fold]
            )
            gain[alone | (fold == target)] = 0.0
            best = min(best, (float(gain.min()), ("move", int(gain.argmin()), target)), key=lambda pair: pair[0])
        for first in range(n):
            for second in range(first):
                here, there = np.flatnonzero(fold == first), np.flatnonzero(fold == second)
                change = counts[there][None] - counts[here][:, None]  # [here, there, outcome]
                gain = np.abs(sums[first] + change - even) @ weight + np.abs(sums[second] - change - even) @ weight
                gain -= cost[first] + cost[second]
                at = np.unravel_index(gain.argmin(), gain.shape)
                pair = ("swap", int(here[at[0]]), int(there[at[1]]))
                best = min(best, (float(gain[at]), pair), key=lambda pair: pair[0])
        if best[1] is None:
            return fold
        kind, site, other = best[1]
        if kind == "move":
            fold[site] = other
        else:
            fold[site], fold[other] = fold[other], fold[site]


def _sums(counts: np.ndarray, fold: np.ndarray, n: int) -> np.ndarray:
    """[n, C] patients by fold and outcome."""
    return (np.arange(n)[:, None] == fold) @ counts


def _shape(fold: np.ndarray, n: int) -> frozenset:
    """Which sites are together, whatever the folds' numbers."""
    return frozenset(frozenset(np.flatnonzero(fold == number).tolist()) for number in range(n))


def _count(site: dict[str, str], outcomes: dict[str, list[str]]) -> tuple[list[str], np.ndarray]:
    """Sorted sites, and their patients by outcome, float64 [S, 1 + C]; the first column counts all."""
    names = sorted(set(site.values()))
    texts = sorted({text for patient in site for text in outcomes[patient]})
    row = {name: index for index, name in enumerate(names)}
    column = {text: index + 1 for index, text in enumerate(texts)}
    counts = np.zeros((len(names), 1 + len(texts)))
    for patient, own in site.items():
        counts[row[own], 0] += 1
        for text in outcomes[patient]:
            counts[row[own], column[text]] += 1
    return names, counts
