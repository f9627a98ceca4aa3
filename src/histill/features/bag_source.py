"""What the readers of bag files hand over: arrays that are not read yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Source:
    """An open bag file.

    Attributes
    ----------
    key
        Name of the array of features, for messages.
    features, coords
        Arrays with `shape` and `dtype` that `[...]` reads; no coords where the file has none.
    attributes
        Settings: plain values and short lists.
    valid
        Rows [N] that the file itself calls valid; None: all.
    stored
        Bytes that the features take in the file; None where that is their own size.
    """

    key: str
    features: Any
    coords: Any
    attributes: dict[str, Any] = field(default_factory=dict)
    valid: np.ndarray | None = None
    stored: int | None = None
