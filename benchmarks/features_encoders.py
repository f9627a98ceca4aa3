"""Encoders with fixed random weights, as a plug-in of histill: what they cost is what those with real weights cost.

Known to processes that have the folder of `install` and this one in PYTHONPATH.
"""

from __future__ import annotations

from pathlib import Path

from histill.encoders.recipes import builtin

_ANYWHERE = {"hub": None, "revision": None, "file": None, "seed": 0, "mpp": (0.2, 2.2), "tile": None, "ignore": ()}
_SOURCE = {"licence": "Apache-2.0", "source": "random weights, for benchmarks only", "gated": False}


def install(folder: Path) -> None:
    """Write the metadata of a distribution with the entry point."""
    metadata = folder / "histill_benchmark-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: histill-benchmark\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[histill.encoders]\nbenchmark = {Path(__file__).stem}\n")


def _random(name: str) -> dict:
    """A recipe of the registry without its weights, for any resolution."""
    fields = {key: value for key, value in builtin()[name].as_dict().items() if key not in ("name", "plugin")}
    return fields | _ANYWHERE | _SOURCE


recipes = {
    "random-vit-s": _random("kaiko-s16"),  # ViT-S/16, float32
    "random-vit-l": _random("uni"),  # ViT-L/16, float16
    "random-vit-g": _random("h-optimus-0"),  # ViT-g/14 with registers, float16
    "random-mobilenet": {
        **_random("kaiko-s16"),
        "architecture": "mobilenetv3_small_050",
        "arguments": {"num_classes": 0},
        "parameters": None,
        "dim": 1024,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
}
