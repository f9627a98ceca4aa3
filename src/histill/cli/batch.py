"""A slide stage on the slides of one batch, or of all."""

from __future__ import annotations

from pathlib import Path


def run_slides(stage: str, run, config: Path, batch: str | None, out: Path | None, **options) -> None:
    """Run a slide stage; with `out`, write the receipt of its batch there."""
    from histill import batches, plan

    checked = plan.load(config, look=batch is None)
    slides = checked.slides(batch) if batch else list(checked.sheets.slides.values())
    receipts = run(slides, config=checked.config, results=checked.results, **options)
    if out:
        batches.write_batch(out, stage, receipts)
