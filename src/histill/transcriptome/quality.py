"""Quality of samples: library size, detected genes, place among the others, and which stand apart.

For a reader's eyes: it looks across all patients, so nothing of it enters a model.
"""

from __future__ import annotations

import numpy as np

from histill.transcriptome.matrix import Matrix
from histill.transcriptome.normalise import LINEAR

COMPONENTS = 10
VARIABLE_GENES = 2000  # the most variable ones, for the principal components
CLIP = (0.01, 0.99)
FAR = 5.0  # robust z-score of an outlier
MIN_SAMPLES = 10  # below, a median absolute deviation says little
MEASURES = {"library_size": "reads", "detected_genes": "detected genes", "distance": "distance from the others"}


def table(matrix: Matrix, scaled: np.ndarray) -> dict[str, list]:
    """One row a sample.

    Parameters
    ----------
    matrix
        Values in their unit.
    scaled
        The same on the scale that models read, [patients, genes].

    Returns
    -------
    dict
        Column -> values: `sample`, `patient_id`; `library_size`, counted reads, None unless the table holds counts;
        `detected_genes`, those above 0, None unless the scale has a zero; `pc1`, `pc2`; `distance`, Euclidean, from the
        median sample in the first principal components; `outlier`, why a sample stands apart, empty where it does not.
    """
    n = len(matrix.samples)
    scores = principal_components(scaled)
    columns = {
        "library_size": matrix.library,
        "detected_genes": (matrix.values > 0).sum(axis=1) if matrix.unit in LINEAR else None,
        "distance": np.linalg.norm(scores - np.median(scores, axis=0), axis=1),
    }
    found = {name: [None] * n if column is None else column.tolist() for name, column in columns.items()}
    return {
        "sample": matrix.samples,
        "patient_id": matrix.patients,
        **found,
        "pc1": scores[:, 0].tolist(),
        "pc2": scores[:, 1].tolist(),
        "outlier": outliers({name: column for name, column in columns.items() if column is not None}),
    }


def principal_components(scaled: np.ndarray) -> np.ndarray:
    """Scores of the samples, float64 [samples, 2 to 10]; 0 beyond the rank of the data.

    Of the most variable genes, each clipped to its 1st and 99th percentile: one value alone cannot place a sample.
    """
    from sklearn.decomposition import PCA

    variance = scaled.var(axis=0, dtype=np.float64)
    chosen = np.sort(np.argsort(-variance, kind="stable")[:VARIABLE_GENES])
    own = scaled[:, chosen].astype(np.float64)
    own = np.clip(own, *np.quantile(own, CLIP, axis=0))
    rank = min(COMPONENTS, len(own) - 1, own.shape[1])
    scores = np.zeros((len(own), max(2, rank)))
    if rank > 0 and own.var(axis=0).max() > 0:
        solver = "full" if len(own) < VARIABLE_GENES else "covariance_eigh"
        scores[:, :rank] = PCA(rank, svd_solver=solver).fit_transform(own)
    return scores


def outliers(columns: dict[str, np.ndarray]) -> list[str]:
    """Why each sample stands apart; empty where it does not.

    A sample stands apart when the robust z-score, (x - median) / (1.4826 · MAD), of its log10 library size or of its
    detected genes is beyond ±5, or that of its distance is above 5. Fewer than 10 samples are not judged.
    """
    n = len(next(iter(columns.values())))
    reasons: list[list[str]] = [[] for _ in range(n)]
    if n < MIN_SAMPLES:
        return [""] * n
    for name, column in columns.items():
        z = robust_z(np.log10(column) if name == "library_size" else np.asarray(column, dtype=np.float64))
        beyond = z > FAR if name == "distance" else np.abs(z) > FAR
        for index in np.flatnonzero(beyond):
            reasons[index].append(f"{MEASURES[name]} {column[index]:,.0f} (z {z[index]:+.1f})")
    return ["; ".join(own) for own in reasons]


def robust_z(values: np.ndarray) -> np.ndarray:
    """(x - median) / (1.4826 · MAD); 0 everywhere when more than half of the values are one."""
    centred = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(centred))
    return centred / spread if spread > 0 else np.zeros(len(values))
