"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Config file (YAML, or results/config.json).")]
BatchOption = Annotated[str | None, typer.Option("--batch", help="Batch of slides; all slides without it.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Receipt to write.")]
TaskOption = Annotated[str, typer.Option("--task", help="Task of the config.")]
EncoderArgument = Annotated[str, typer.Argument(help="Encoder.")]
VariantOption = Annotated[
    str | None, typer.Option("--variant", help="Variant of the ablation; the full models without it.")
]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="Local file or folder in place of the hub's.")]
DEFAULT_CONFIG = Path("config.yaml")
