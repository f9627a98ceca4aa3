"""A pre-trained encoder beside the colour-texture descriptor: do their vectors tell LUAD from LUSC tiles?

    python benchmarks/encoders.py --tiles uni_tcga_luadlusc.zip --nic nic_encoder_multitask-4.h5 [--overlaps]

Prints the tables of docs/results.md, "A pre-trained encoder beside the colour-texture descriptor". One protocol for
every descriptor: standardised, L2-penalised logistic regression, its penalty chosen by cross-validation inside the
training tiles with whole regions held out, five seeds of that cross-validation. The table of fixed penalties shows what
hangs on that choice; nothing is chosen from it.

The archive holds JPEG tiles `SPLIT/CLASS/REGION_TILE_WIDTH.jpg`. Tiles of a region overlap, so regions are what is
resampled. WIDTH seems to be the tile's side in pixels of the scan; split, class and width are taken to name a slide.
"""

from __future__ import annotations

import argparse
import itertools
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import nic_encoder
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histill.encoders import prefetch, recipes
from histill.encoders.colour_texture import ColourTexture
from histill.errors import HistillError
from histill.evaluation import intervals, metrics

NAME = re.compile(r"(train|test)/(LUAD|LUSC)/(\d+)_\d+_(\d+)\.jpg$")
MPP = 0.5  # µm per pixel of the tiles, as every WIDTH then is a pixel size of a 40x scan; the archive does not say
SEEDS = range(5)
FOLDS = 3  # the smallest number of regions of a slide
PENALTIES = np.logspace(-5, 3, 17)  # C, the inverse strength
FIXED = (1e-5, 1e-3, 1e-1, 10, 1000)
DRAWS, CONFIDENCE = 1000, 0.95
METRICS = (("AUC", metrics.auc), ("balanced accuracy", metrics.balanced_accuracy))


@dataclass(frozen=True)
class Tiles:
    """Tiles of an archive.

    Attributes
    ----------
    pictures
        uint8 RGB [N, 256, 256, 3].
    lusc
        [N] 1 for LUSC, 0 for LUAD.
    slide
        [N] split, class and width, as one name.
    region
        [N] index over all slides.
    """

    pictures: np.ndarray
    lusc: np.ndarray
    slide: np.ndarray
    region: np.ndarray

    def of(self, *slides: str) -> np.ndarray:
        """Rows of these slides."""
        return np.flatnonzero(np.isin(self.slide, slides))

    def slides(self, part: str) -> list[str]:
        """Slides of a split or a class."""
        return [str(name) for name in np.unique(self.slide) if part in name.split()]


def read(archive: Path) -> Tiles:
    """The tiles of an archive.

    Raises
    ------
    HistillError
        When a split has not exactly one slide of each class: the pairs of slides below would not be what they say.
    """
    with zipfile.ZipFile(archive) as files:
        found = [(name, match.groups()) for name in files.namelist() if (match := NAME.search(name))]
        pictures = [cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_COLOR) for name, _ in found]
    slide = np.array([f"{split} {label} {width}" for _, (split, label, _, width) in found])
    regions = [f"{name} {parts[2]}" for name, (_, parts) in zip(slide, found, strict=True)]
    expected = sorted(f"{split} {label}" for split in ("train", "test") for label in ("LUAD", "LUSC"))
    if sorted(name.rsplit(" ", 1)[0] for name in np.unique(slide)) != expected:
        raise HistillError(
            f"{archive}: slides {', '.join(np.unique(slide)) or 'none'}, expected one of each class in train and test",
            mend="give the archive assets/data/tcga_luadlusc.zip of github.com/mahmoodlab/UNI",
        )
    return Tiles(
        pictures=np.stack([cv2.cvtColor(one, cv2.COLOR_BGR2RGB) for one in pictures]),
        lusc=np.array([int(label == "LUSC") for _, (_, label, _, _) in found]),
        slide=slide,
        region=np.unique(regions, return_inverse=True)[1],
    )


def nic(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """NIC under its recipe: tiles area-averaged to 1.0 µm per pixel, cut in pieces of 64 px, their vectors averaged."""
    (name, entry), *_ = nic_encoder.recipes.items()
    recipe = recipes.make(name, entry, plugin="benchmarks/nic_encoder.py")
    encoder = nic_encoder.build(recipe, weights=prefetch.prefetch(recipe, given=path), device="cpu")
    side = recipe.input

    def encode(pictures: np.ndarray) -> np.ndarray:
        small = np.stack([cv2.resize(one, None, fx=MPP, fy=MPP, interpolation=cv2.INTER_AREA) for one in pictures])
        rows = range(0, small.shape[1] - side + 1, side)
        pieces = [small[:, y : y + side, x : x + side] for y in rows for x in rows]
        return np.mean([encoder.encode(piece, 1.0) for piece in pieces], axis=0)

    return encode


def predict(
    vectors: np.ndarray, tiles: Tiles, train: np.ndarray, test: np.ndarray, penalties: np.ndarray
) -> tuple[np.ndarray, float, list[float]]:
    """Probability of LUSC for the tiles `test`, from a model of the tiles `train`.

    Returns
    -------
    Probabilities [seeds, tiles], the mean AUC in the cross-validation inside `train`, and the penalty of each seed.
    """
    probabilities, inside, chosen = [], [], []
    for seed in SEEDS:
        search = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000)),
            {"logisticregression__C": penalties},
            scoring={"loss": "neg_log_loss", "auc": "roc_auc"},
            refit="loss",
            cv=StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed),
        )
        search.fit(vectors[train], tiles.lusc[train], groups=tiles.region[train])
        probabilities.append(search.predict_proba(vectors[test])[:, 1])
        inside.append(search.cv_results_["mean_test_auc"][search.best_index_])
        chosen.append(search.best_params_["logisticregression__C"])
    return np.stack(probabilities), float(np.mean(inside)), chosen


def region_weights(tiles: Tiles, test: np.ndarray) -> np.ndarray:
    """Weights [1 + draws, tiles]: ones, then counts of bootstrap resamples of the regions that the tiles come from."""
    regions, first, member = np.unique(tiles.region[test], return_index=True, return_inverse=True)
    lusc = tiles.lusc[test][first].astype(bool)
    counts, _ = intervals.resample(
        len(regions),
        DRAWS,
        np.random.default_rng(0),
        lambda draws: draws[:, lusc].any(axis=1) & draws[:, ~lusc].any(axis=1),
    )
    return np.vstack([np.ones((1, len(test))), counts[:, member]])


def compare(
    vectors: dict[str, np.ndarray], tiles: Tiles, train: list[str], test: list[str], penalties: np.ndarray = PENALTIES
) -> dict[str, dict]:
    """Descriptors trained on the slides `train` and tested on the slides `test`, under the same resamples.

    Returns
    -------
    Descriptor -> metric -> values [1 + draws], averaged over the seeds, the first on all tiles; beside the metrics
    `inside` and `penalties`, from `predict`.
    """
    rows, held = tiles.of(*train), tiles.of(*test)
    weights, lusc = region_weights(tiles, held), tiles.lusc[held]
    found = {}
    for name, table in vectors.items():
        probabilities, inside, chosen = predict(table, tiles, rows, held, penalties)
        classes = [np.column_stack([1 - one, one]) for one in probabilities]
        found[name] = {label: np.mean([score(lusc, one, weights) for one in classes], 0) for label, score in METRICS}
        found[name] |= {"inside": inside, "penalties": chosen}
    return found


def figure(values: np.ndarray, sign: str = "") -> str:
    """The value on all tiles, and the interval of its resamples."""
    numbers = (values[0], *intervals.percentile_interval(values[1:], CONFIDENCE))
    return "{} ({} to {})".format(*(f"{number:{sign}.3f}" for number in numbers)).replace("-", "−")


def difference(found: dict[str, dict], left: str, right: str, metric: str) -> str:
    return figure(found[left][metric] - found[right][metric], sign="+")


def print_table(head: list[str], rows: list[list[str]]) -> None:
    lines = [head, ["---"] * len(head), *rows]
    print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))


def print_split(found: dict[str, dict]) -> None:
    names = [name for name, _ in METRICS]
    print_table(
        ["descriptor", *names, "AUC inside the training slides", "C, by seed"],
        [
            [
                descriptor,
                *(figure(values[name]) for name in names),
                f"{values['inside']:.3f}",
                ", ".join(f"{float(f'{penalty:.2g}'):g}" for penalty in values["penalties"]),
            ]
            for descriptor, values in found.items()
        ],
    )
    print_table(
        ["difference", *names],
        [
            [f"{left} − {right}", *(difference(found, left, right, name) for name in names)]
            for left, right in itertools.combinations(found, 2)
        ],
    )


def print_runs(what: str, runs: dict[str, dict[str, dict]]) -> None:
    """One table a metric, one row a run: every descriptor, and the difference of the first two."""
    for name, _ in METRICS:
        descriptors = list(next(iter(runs.values())))
        left, right = descriptors[:2]
        print_table(
            [f"{name}, {what}", *descriptors, f"{left} − {right}"],
            [
                [label, *(f"{values[name][0]:.3f}" for values in found.values()), difference(found, left, right, name)]
                for label, found in runs.items()
            ],
        )


def overlaps(tiles: Tiles) -> tuple[int, int]:
    """Pairs of tiles that show the same tissue, within a region and between regions.

    SIFT features matched by Lowe's ratio test (0.75) and a similarity transform: 8 inliers within 2 px are an overlap.
    """
    sift, matcher = cv2.SIFT_create(300), cv2.BFMatcher()
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in tiles.pictures]
    points, features = zip(*(sift.detectAndCompute(picture, None) for picture in grey), strict=True)
    counts = [0, 0]
    for one, two in itertools.combinations(range(len(grey)), 2):
        matches = matcher.knnMatch(features[one], features[two], k=2)
        matches = [best for best, next_best in matches if best.distance < 0.75 * next_best.distance]
        if len(matches) < 8:
            continue
        source = np.float32([points[one][match.queryIdx].pt for match in matches])
        target = np.float32([points[two][match.trainIdx].pt for match in matches])
        _, inliers = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=2)
        if inliers is not None and inliers.sum() >= 8:
            counts[int(tiles.region[one] != tiles.region[two])] += 1
    return counts[0], counts[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, help="archive of labelled tiles")
    parser.add_argument("--nic", type=Path, required=True, help="weights of the multi-task encoder")
    parser.add_argument("--overlaps", action="store_true", help="look for tiles that show the same tissue (20 s)")
    given = parser.parse_args()
    tiles = read(given.tiles)
    print_table(
        ["slide", "regions", "tiles", "µm per pixel of the scan"],
        [
            [name, str(len(np.unique(tiles.region[rows]))), str(len(rows)), f"{256 * MPP / int(name.split()[-1]):.4f}"]
            for name in np.unique(tiles.slide)
            for rows in [tiles.of(name)]
        ],
    )
    if given.overlaps:
        print("\noverlapping pairs of tiles: {} within regions, {} between".format(*overlaps(tiles)))
    vectors = {
        "NIC": nic(given.nic)(tiles.pictures),
        "colour-texture": ColourTexture().encode(tiles.pictures, MPP),
        "mean RGB": tiles.pictures.mean(axis=(1, 2)),
    }
    train, test = tiles.slides("train"), tiles.slides("test")
    print_split(compare(vectors, tiles, train, test))
    pairs = itertools.product(reversed(tiles.slides("LUAD")), reversed(tiles.slides("LUSC")))
    runs = {}
    for pair in pairs:
        others = [name for name in train + test if name not in pair]
        runs[", ".join(pair)] = compare(vectors, tiles, list(pair), others)
    print_runs("trained on", runs)
    runs = {f"{penalty:g}": compare(vectors, tiles, train, test, [penalty]) for penalty in FIXED}
    print_runs("train to test, C fixed at", runs)


if __name__ == "__main__":
    main()
