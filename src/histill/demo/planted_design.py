"""What the planted cohort is drawn from: factors, outcomes, counts and the features of tiles.

Every patient has a tumour factor z_t and a microenvironment factor z_e, vectors of `FACTORS` independent standard
normal numbers. A bag holds three kinds of tiles: tumour tiles show z_t, microenvironment tiles z_e, all others neither.
Genes of the tumour sets follow z_t, genes of the microenvironment sets z_e. Outcomes follow both, with noise.

What makes it a test of distillation: transcriptomes tell the factors almost without noise, and outcomes tell little of
them. A teacher that reads genes thus learns more from few outcomes than a model of slides can, which has to find the
directions of the factors among all dimensions of the features. How much of a kind a slide holds is independent of the
factors, and the other tiles vary along the same directions as the two kinds that matter, so the mean of a bag misleads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from histill.demo.expression import background_genes
from histill.subspaces import SUBSPACES
from histill.transcriptome.gene_sets import SHIPPED, GeneSets, members, read_gmt

FACTORS = 3  # numbers of each of the two factors
KINDS = (*SUBSPACES, "other")  # of a tile, in the order of its number
CLASSES = ("type A", "type B", "type C")
TILE_PX = 224  # of a 20x tile, at 0.5 µm per pixel; 10x tiles cover 2 × 2 of them

# Of a tile's features, standard deviations of one dimension:
CENTROID = 0.6  # of the centre of a kind: kinds lie apart by about 7 at 64 dimensions
SIGNAL = 1.0  # length of the shift along a direction for one standard deviation of its number
NUISANCE = 0.6  # of what all tiles of a kind share in a patient and magnification: stain, handling, other biology
NOISE = 1.0  # of a tile
OTHER_CLUSTERS = 4  # the other tiles are of so many kinds, two of them in a patient
CHILD_KEEPS = 0.9  # probability that a 20x tile is of its 10x tile's kind

LOADING = 0.5  # natural-log fold change of a gene per standard deviation along its set's direction
DISPERSION = 0.1  # of the negative binomial counts
MEDIAN_COUNT, MEDIAN_BACKGROUND = 120.0, 3000.0

LOG_HAZARD = 0.8  # standard deviation of the log hazard that the factors explain
MEDIAN_MONTHS, WEIBULL_SHAPE = 30.0, 1.2
FOLLOW_UP_MONTHS = (10.0, 140.0)  # censoring is uniform between these: about 30 % of the patients
SCORE_NOISE = 0.75  # standard deviation of the noise of the diagnosis' score, the factors' part having 1
CLASS_SHARES = (0.4, 0.35, 0.25)

# Random streams: each purpose draws from its own, so that a change in one leaves the others as they are.
_FACTORS, _OUTCOMES, _APPEARANCE, _EXPRESSION, _PAIRS, _SLIDES = range(6)


@dataclass(frozen=True)
class Patients:
    """Factors and outcomes of P patients.

    Attributes
    ----------
    factors
        Subspace -> [P, FACTORS], standard normal.
    months, event
        [P] follow-up, and 1 where it ends in the event.
    diagnosis
        [P] index into `CLASSES`.
    """

    ids: list[str]
    factors: dict[str, np.ndarray]
    months: np.ndarray
    event: np.ndarray
    diagnosis: np.ndarray


@dataclass(frozen=True)
class Level:
    """Tiles of a slide at one magnification, laid out as `histill.features.store.Group`, and the truth of them.

    `kind` [N] is an index into `KINDS`.
    """

    x: np.ndarray
    spatial: np.ndarray
    obs: dict[str, np.ndarray]
    kind: np.ndarray
    var_names: list[str] | None = None

    @property
    def valid(self) -> np.ndarray:
        return self.obs["valid"]


def draw_patients(count: int, seed: int) -> Patients:
    """Factors and outcomes of `count` patients."""
    rng = _stream(seed, _FACTORS)
    factors = {subspace: rng.standard_normal((count, FACTORS)) for subspace in SUBSPACES}
    rng = _stream(seed, _OUTCOMES)
    hazard, score = (_effect(factors, rng) for _ in range(2))
    scale = MEDIAN_MONTHS / math.log(2) ** (1 / WEIBULL_SHAPE)
    death = scale * (rng.exponential(size=count) * np.exp(-LOG_HAZARD * hazard)) ** (1 / WEIBULL_SHAPE)
    censored = rng.uniform(*FOLLOW_UP_MONTHS, count)
    noisy = score + SCORE_NOISE * rng.standard_normal(count)
    return Patients(
        ids=[f"PLA-{index + 1:0{max(3, len(str(count)))}d}" for index in range(count)],
        factors=factors,
        months=np.minimum(death, censored),
        event=(death <= censored).astype(int),
        diagnosis=np.searchsorted(np.quantile(noisy, np.cumsum(CLASS_SHARES)[:-1]), noisy),
    )


def draw_counts(cohort: Patients, seed: int) -> tuple[list[str], np.ndarray]:
    """Symbols, sorted, and raw counts [genes, patients], int64.

    Every set has a direction in its subspace's factor and its genes follow that; a gene of several sets follows all of
    them, a background gene none. Variance is mean + `DISPERSION` · mean².
    """
    rng = _stream(seed, _EXPRESSION)
    sets = {subspace: read_gmt(SHIPPED / f"{subspace}.gmt") for subspace in SUBSPACES}
    programme = sorted({gene for own in sets.values() for gene in members(own)})
    background = background_genes()
    genes = [*programme, *background]
    row = {gene: index for index, gene in enumerate(genes)}
    log_mean = rng.normal(np.log([MEDIAN_COUNT] * len(programme) + [MEDIAN_BACKGROUND] * len(background)), 1.0)
    log_mean = log_mean[:, None] + rng.normal(0, 0.3, len(cohort.ids))  # depth of a sample
    for subspace, own in sets.items():
        log_mean += _loadings(own, row, rng) @ cohort.factors[subspace].T
    counts = rng.poisson(rng.gamma(1 / DISPERSION, np.exp(log_mean) * DISPERSION))
    order = np.argsort(genes)
    return [genes[index] for index in order], counts[order]


def partners(count: int, seed: int) -> np.ndarray:
    """For each patient [P] another one, each once: a random cycle through all of them."""
    cycle = _stream(seed, _PAIRS).permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[cycle] = np.roll(cycle, 1)
    return other


class Appearance:
    """How kinds and factors look in the features: centres and directions, one for the whole cohort."""

    def __init__(self, dim: int, seed: int):
        rng = _stream(seed, _APPEARANCE)
        self.centres = CENTROID * rng.standard_normal((len(SUBSPACES) + OTHER_CLUSTERS, dim))
        self.level = {name: CENTROID / 2 * rng.standard_normal(dim) for name in ("10x", "20x")}
        # Orthonormal rows, so that a number of a factor shifts along one direction by its size.
        rows = np.linalg.qr(rng.standard_normal((dim, len(SUBSPACES) * FACTORS)))[0].T
        self.directions = rows.reshape(len(SUBSPACES), FACTORS, dim)

    def slide(self, factors: Mapping[str, np.ndarray], tiles: int, rng: np.random.Generator) -> dict[str, Level]:
        """A slide of a patient with `factors` [FACTORS] by subspace: Level by magnification."""
        cells = _tissue(tiles // 4, rng)
        clusters = _clusters(cells, rng)
        children = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
        parent = np.repeat(np.arange(len(cells)), len(children))
        fine = np.where(rng.random(tiles) < CHILD_KEEPS, clusters[parent], rng.permutation(clusters[parent]))
        return {
            "10x": self._level("10x", factors, clusters, 2 * TILE_PX * cells, np.full(len(cells), -1), 0, rng),
            "20x": self._level(
                "20x",
                factors,
                fine,
                TILE_PX * (2 * cells[parent] + np.tile(children, (len(cells), 1))),
                parent,
                len(cells),
                rng,
            ),
        }

    def _level(self, name, factors, clusters, spatial, parent, first, rng) -> Level:
        dim = self.centres.shape[1]
        shift = NUISANCE * rng.standard_normal((len(self.centres), dim))
        for index in range(len(self.centres)):
            if index < len(SUBSPACES):
                shift[index] += SIGNAL * factors[SUBSPACES[index]] @ self.directions[index]
            else:
                shift[index] += SIGNAL * rng.standard_normal(2 * FACTORS) @ self.directions.reshape(-1, dim)
        x = (self.centres + self.level[name] + shift)[clusters] + NOISE * rng.standard_normal((len(clusters), dim))
        obs = {
            "tile": np.arange(first, first + len(x), dtype=np.int32),
            "parent": parent.astype(np.int32),
            "valid": np.ones(len(x), dtype=bool),
        }
        return Level(x.astype(np.float16), spatial.astype(np.int64), obs, np.minimum(clusters, len(SUBSPACES)))


def slide_stream(seed: int, index: int) -> np.random.Generator:
    """The random generator of one patient's slide."""
    return _stream(seed, _SLIDES, index)


def _stream(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose])


def _effect(factors: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A linear function of both factors in equal parts [P], of standard deviation 1."""
    directions = rng.standard_normal((len(factors), FACTORS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True) * math.sqrt(len(factors))
    return sum(z @ direction for z, direction in zip(factors.values(), directions, strict=True))


def _loadings(sets: GeneSets, row: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """Natural-log fold changes [genes, FACTORS] of the genes of a subspace."""
    loadings = np.zeros((len(row), FACTORS))
    for genes in sets.values():
        direction = rng.standard_normal(FACTORS)
        direction /= np.linalg.norm(direction)
        own = rng.normal(LOADING, LOADING / 3, len(genes))
        loadings[[row[gene] for gene in genes]] += own[:, None] * direction
    return loadings


def _tissue(count: int, rng: np.random.Generator) -> np.ndarray:
    """Cells [count, 2] (column, row) of the 10x grid in one connected, ragged piece, in rows from the top."""
    side = 2 * math.ceil(math.sqrt(count))
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    distance = np.hypot(columns - side / 2, rows - side / 2) + rng.uniform(0, 1, columns.shape)
    kept = np.sort(np.argsort(distance, axis=None)[:count])
    return np.column_stack([columns.ravel()[kept], rows.ravel()[kept]])


def _clusters(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clusters [N] of cells: 0 tumour, 1 microenvironment, 2 and more the others, in regions of neighbours."""
    shares = rng.dirichlet([4.0, 4.0, 5.0])
    ends = np.round(np.cumsum(shares)[:-1] * len(cells)).astype(int).clip(2, len(cells) - 2)
    others = len(SUBSPACES) + rng.choice(OTHER_CLUSTERS, 2, replace=False)
    seeds = cells[rng.choice(len(cells), 3, replace=False)]
    # Nests: the tumour is what lies nearest to one or two seeds; stroma what lies next to another.
    near = np.linalg.norm(cells[:, None] - seeds, axis=2) + rng.uniform(0, 0.5, (len(cells), len(seeds)))
    clusters = np.where(near[:, 2] < np.median(near[:, 2]), *others)
    order = np.argsort(near[:, :2].min(axis=1) if rng.random() < 0.5 else near[:, 0])
    clusters[order[: ends[0]]] = 0
    rest = order[ends[0] :]
    stroma = rest[np.argsort(near[rest, 2])[: max(2, ends[1] - ends[0])]]
    clusters[stroma] = 1
    return clusters
