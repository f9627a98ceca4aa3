"""The multi-task encoder of neural image compression (NIC) as a plug-in: 64 × 64 px at 1.0 µm per pixel -> 128 numbers.

Four strided 3 × 3 convolutions, each with a leaky rectifier and batch normalisation, and a dense layer: 0.6 million
parameters, trained on histology (Tellez et al., IEEE TPAMI 2021, doi 10.1109/TPAMI.2019.2936841). The file is Keras
HDF5, from github.com/davidtellez/neural-image-compression (MIT). A package would name this module by an entry point of
the group `histill.encoders`.
"""

from __future__ import annotations

import numpy as np

recipes = {
    "nic-multitask": {
        "builder": "plugin",
        "file": "nic_encoder_multitask-4.h5",
        "dim": 128,
        "tile": [64],
        "input": 64,
        "mpp": [0.9, 1.1],
        "licence": "MIT",
        "source": "Tellez et al., IEEE TPAMI 2021, doi 10.1109/TPAMI.2019.2936841",
    }
}


class Nic:
    """The encoder; `weights` are the file's arrays by layer and name, as torch tensors."""

    dim, names = 128, None

    def __init__(self, path):
        import h5py
        import torch

        self.weights = {}

        def keep(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                self.weights[name.split("/", 1)[1]] = torch.from_numpy(item[:])

        with h5py.File(path) as handle:
            handle["model_weights"].visititems(keep)

    def encode(self, tiles: np.ndarray, mpp: float) -> np.ndarray:
        """uint8 RGB tiles [B, 64, 64, 3] at 1.0 µm per pixel -> float32 [B, 128]."""
        import torch
        import torch.nn.functional as F

        w = self.weights
        x = torch.from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2) / 127.5 - 1
        for layer in range(1, 5):
            conv, norm = f"conv2d_{layer}/", f"batch_normalization_{layer}/"
            # Keras stores kernels as height, width, input, output.
            x = F.conv2d(x, w[conv + "kernel:0"].permute(3, 2, 0, 1), w[conv + "bias:0"], stride=2)
            x = F.leaky_relu(x, 0.2)
            statistics = (w[norm + name] for name in ("moving_mean:0", "moving_variance:0", "gamma:0", "beta:0"))
            x = F.batch_norm(x, *statistics, eps=1e-3)
        # Keras flattens height, width, channels.
        return (x.permute(0, 2, 3, 1).flatten(1) @ w["encoded/kernel:0"] + w["encoded/bias:0"]).numpy()


def build(recipe, *, weights, device):
    """The encoder from the recipe's file; it runs on the CPU whatever `device` says."""
    return Nic(weights.file)
