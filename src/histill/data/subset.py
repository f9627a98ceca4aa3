"""Random tiles of a bag: what training sees of it in an epoch."""

from __future__ import annotations

import hashlib

import numpy as np

from histill.data.geometry import COARSE, FINE


def random_stream(seed: int, epoch: int, name: str) -> np.random.Generator:
    """Random numbers that follow from a seed, an epoch and a name, whatever was drawn before."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], np.uint32)
    return np.random.default_rng([seed, epoch, *words.tolist()])


def draw(
    counts: dict[str, int], parents: np.ndarray | None, limit: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Rows of a random subset by magnification, rising: at most `limit` of each, all where there are no more.

    Where it is known which 20x tile lies in which 10x tile, the 10x tiles are put in random order; the first `limit`
    are taken, and the children of the first ones up to as many 20x tiles, so that most 20x tiles come with their 10x
    tile and their neighbours. A 20x tile without a known parent takes a random place among them. Else each
    magnification is drawn by itself.

    Parameters
    ----------
    counts
        Magnification -> number of tiles.
    parents
        Row of the 10x tile of each 20x tile [N20], −1 where not known; None where there are not both.
    """
    rank = {level: generator.permutation(count).astype(np.float64) for level, count in counts.items()}
    if parents is not None and (parents >= 0).any():
        stray = generator.uniform(0, counts[COARSE], len(parents))
        rank[FINE] = np.where(parents >= 0, rank[COARSE][parents], stray)
    return {level: np.sort(np.argsort(own, kind="stable")[:limit]) for level, own in rank.items()}
