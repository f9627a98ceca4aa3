"""The magnifications of a bag: name -> µm per pixel. The Snakefile reads this, so it imports nothing."""

from __future__ import annotations

MAGNIFICATIONS = {"10x": 1.0, "20x": 0.5}
