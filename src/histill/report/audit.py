"""The leakage audit: whether anything of a test patient was seen in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.provenance import read_json
from histill.report.wording import plural

AUDIT = Path("cohort") / "audit.json"
OK, LEAK, WARNED = "ok", "leak", "warned"


def audit_facts(results: Path) -> dict[str, Any] | None:
    """Content of the audit's file; None where no audit has run."""
    path = results / AUDIT
    return read_json(path) if path.exists() else None


def verdict(audit: dict[str, Any] | None) -> str:
    """What the audit comes to, in one sentence."""
    if audit is None:
        return "No leakage audit has run."
    if audit["state"] == OK:
        return "No two patients of the cohort seem to be one."
    leaks = sum(finding["leak"] for finding in audit["findings"])
    pairs = plural(len(audit["findings"]), "pair")
    where = (
        f"{leaks} of them on both sides of a split" if leaks else "none of them on both sides of a split for certain"
    )
    return f"{pairs} of patients who seem to be one, {where}."
