"""Whether what a bundle holds can be used: arrays that are finite, and that fit their network and one another.

Digests find damage. They do not find a file that was written wrong, or by somebody who wishes harm: such a bundle is
refused when it is read, and neither fails nor answers NaN at the first slide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from histill.bundle.manifest import MEND
from histill.bundle.reference import GRID, Reference
from histill.errors import HistillError
from histill.methods.checkpoint import Checkpoint, build_network


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Whatever fails on content that does not fit its format, as one error that names it."""
    try:
        yield
    except HistillError as error:
        raise HistillError(error.message, mend=MEND) from None
    except Exception as error:  # nothing is known of the content, and so nothing of how it fails
        said = " ".join(str(error).split())[:200]
        raise HistillError(f"{what} cannot be used: {type(error).__name__}: {said}", mend=MEND) from None


def check_arrays(member: Checkpoint, levels: dict[str, int]) -> None:
    """Raise where a member's arrays are not finite or do not fit its network; see `understood`.

    Parameters
    ----------
    levels
        Magnification -> number of features that the bundle reads.
    """
    _check_finite("weights", member.weights.values())
    for level, scaler in member.scalers.items():
        _check_finite(f"scaling of {level}", scaler.state().values())
    (_check_network if member.arguments else _check_linear)(member, levels)


def check_reference(reference: Reference, about: dict[str, Any]) -> None:
    """Raise where a reference does not fit the task, magnifications and times of bundle.json; see `understood`."""
    classes, levels, times = len(about["task"]["classes"]), about["levels"], about["times"]
    _check_finite("an array", reference.state().values())
    _check("distances", reference.distances, (len(GRID),))
    _check("outputs", reference.outputs, (classes or 1, len(GRID)))
    if (np.diff([0.0, *times]) <= 0).any():
        raise ValueError("times do not rise")
    if (np.diff(reference.distances) < 0).any() or (np.diff(reference.outputs, axis=1) < 0).any():
        raise ValueError("quantiles do not rise")
    if len(reference.appearances) != about["reference"]["folds"]:
        raise ValueError(f"it is of {len(reference.appearances)} folds")
    for own in (one for appearance in reference.appearances for one in appearance.values()):
        if (own.scale < 0).any() or (own.variances <= 0).any() or (own.rest <= 0).any():
            raise ValueError("a variance is not positive")
    if not set(reference.appearances[0]) <= set(levels):
        raise ValueError(f"it is of magnifications {', '.join(reference.appearances[0])}")
    apart = reference.out_of_distribution({level: np.zeros(width) for level, width in levels.items()})
    _check("distance", apart["score"], ())
    if classes:
        _check("calibration", reference.calibrate(np.full(classes, 1 / classes)), (classes,))
    else:
        _check("calibration", reference.calibrate(0.0), (len(times),))
        if reference.calibrate.times.tolist() != times:
            raise ValueError("its times are not those of the bundle")


def _check_network(member: Checkpoint, levels: dict[str, int]) -> None:
    import torch

    arguments = member.arguments.get("pretrained", member.arguments)
    widths = {level: len(scaler.mean_) for level, scaler in member.scalers.items()}
    if arguments.get("features", widths) != widths:
        raise ValueError(f"the network reads {arguments['features']}, and the scaling is of {widths}")
    # A network of any size costs nothing on this device, and takes the arrays only where their shapes are its own.
    with torch.device("meta"):
        network = build_network(member.kind, member.arguments)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in member.weights.items()}, assign=True)


def _check_linear(member: Checkpoint, levels: dict[str, int]) -> None:
    from histill.methods.baselines.linear import LinearModel

    model, zeros = LinearModel.from_state(member.weights), {"slide": np.zeros((1, sum(levels.values())))}
    if member.labels.task.type == "survival":
        _check("risk", model.predict(zeros), (1, 1))
        _check("survival", model.survival(zeros), (1, len(member.labels.edges)))
    else:
        _check("probabilities", model.predict(zeros), (1, len(member.labels.classes)))


def _check(name: str, value: Any, shape: tuple[int, ...]) -> None:
    if np.shape(value) != shape:
        raise ValueError(f"{name}: of shape {list(np.shape(value))} in place of {list(shape)}")
    _check_finite(name, [np.asarray(value)])


def _check_finite(name: str, arrays: Iterable[np.ndarray]) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{name}: a value is no finite number")
