"""Where torch computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from histill.errors import HistillError

if TYPE_CHECKING:
    import torch


def resolve(device: str) -> torch.device:
    """`auto` is the first visible GPU, else the CPU. A GPU asked for by name must be there."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise HistillError(f"device '{device}' is asked for, and torch sees no GPU", mend="set device: auto or cpu")
    return torch.device(device)
