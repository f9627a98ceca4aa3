"""Receipts of tables: which predictions were scored, and what was written of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from histill.provenance import file_digest, write_json
from histill.software import sign


def write(
    results: Path,
    name: str,
    *,
    stage: str,
    task: str,
    recipe: str,
    predictions: Iterable[Path],
    suffixes: Iterable[str],
) -> dict[str, Any]:
    """Write `receipts/<name>.json`, the receipt of the files `<name><suffix>` of the results, and return it."""

    def digests(paths: Iterable[Path]) -> dict[str, str]:
        return {path.relative_to(results).as_posix(): file_digest(path) for path in paths}

    receipt = {
        "stage": stage,
        "task": task,
        "recipe": recipe,
        "inputs": digests(dict.fromkeys(predictions)),
        "outputs": digests(results / f"{name}{suffix}" for suffix in suffixes),
    }
    receipt = sign(results, receipt)
    write_json(results / "receipts" / f"{name}.json", receipt)
    return receipt
