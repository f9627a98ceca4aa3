"""A trace as text, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from histill.provenance import file_digest
from histill.stages import SLIDE_STAGES
from histill.trace.chain import Chain, Step
from histill.trace.check import Findings

_COLUMNS = 118
_VALUE = 60  # characters of a config value


def told(chain: Chain, last: str, found: Findings, *, slides: bool = False) -> dict[str, Any]:
    """All of a trace, as `--json` prints it.

    Parameters
    ----------
    last
        Name of the step that made the result.
    slides
        Name every slide.
    """
    records = chain.records
    digests = sorted({one for step in chain.steps.values() for one in step.software if one})
    return {
        "made_by": last,
        "config": {"file": "config.json", "digest": file_digest(records.results / "config.json")},
        "seeds": list(chain.config["seeds"]),
        "folds": records.folds(),
        "software": {digest: records.software(digest) for digest in digests},
        "slides": _slides(chain) if slides else None,
        "steps": [_step(step) for step in chain.steps.values()],
        "checked": {"files": found.files, "stores": found.stores, "links": found.links, "stores_whole": found.deep},
        "notes": found.notes,
        "problems": [
            {"kind": one.kind, "step": one.step, "what": one.what, "mend": one.mend} for one in found.problems
        ],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "after": step.before,
        "detail": step.detail,
        "slides": step.states,
        "recipes": step.recipes,
        "recipe_of_config": step.wanted,
        "config": step.settings,
        "receipts": len(step.receipts),
        "inputs": step.inputs,
        "outputs": step.outputs,
        "software": sorted(one for one in step.software if one),
    }


def _slides(chain: Chain) -> list[dict[str, Any]]:
    """Every slide as the last slide stage of the chain left it."""
    known = [stage for stage in SLIDE_STAGES if stage in chain.steps]
    if not known:
        return []
    first, last = chain.slides(known[0]), chain.slides(known[-1])
    return [
        {
            "slide": slide,
            "state": receipt.state,
            "fingerprint": (first.get(slide) or receipt).inputs.get("slide"),
            "reason": receipt.reason,
        }
        for slide, receipt in last.items()
    ]


def lines(trace: dict[str, Any], chain: Chain) -> Iterator[str]:
    """The text of a trace, without its problems."""
    yield f"made by      {trace['made_by']}"
    yield f"config       {trace['config']['file']} (digest {trace['config']['digest']})"
    if trace["folds"]:
        folds, seeds = trace["folds"], ", ".join(map(str, trace["seeds"]))
        repeats = f" over {folds['repeats']} repeats" if folds["repeats"] > 1 else ""
        yield f"folds        {folds['n']}{repeats}, {folds['source']}; seeds of training {seeds}"
    for digest, record in trace["software"].items():
        yield from _software(digest, record)
    if any(None in step.software for step in chain.steps.values()):
        yield "software     of some receipts is not known: they are of an earlier version of histill"
    yield ""
    for step in chain.steps.values():
        yield from _chain_lines(step)
    if trace["slides"] is not None:
        yield ""
        for one in trace["slides"]:
            why = f"  {one['reason']}" if one["reason"] else ""
            yield f"slide {one['slide']}  {one['state']}  {one['fingerprint']}{why}"
    yield ""
    checked = trace["checked"]
    how = "read whole" if checked["stores_whole"] else "by their records; --deep reads them whole"
    yield f"compared     {checked['files']} files, {checked['stores']} stores ({how}), {checked['links']} links"
    yield from (f"note         {note}" for note in trace["notes"])


def _software(digest: str, record: dict[str, Any] | None) -> Iterator[str]:
    if record is None:
        yield f"software     {digest}: its record is gone from receipts/software"
        return
    changed = " with changes" if record["modified"] else ""
    commit = f"commit {record['commit']}{changed}" if record["commit"] else "no commit known"
    yield f"software     {digest}: histill {record['histill']}, {commit}, source {record['source']}"
    packages = {"python": record["python"], **record["packages"]}
    yield from _wrapped([f"{name} {version}" for name, version in packages.items()], ", ")


def _chain_lines(step: Step) -> Iterator[str]:
    counts = ", ".join(f"{count} {state}" for state, count in step.states.items())
    facts = "; ".join(fact for fact in (f"slides: {counts}" if counts else "", step.detail) if fact)
    recipes = ", ".join(step.recipes) or step.wanted or "none"
    yield f"{step.name}  recipe {recipes}" + (f"  ({facts})" if facts else "")
    # Keys are proven by the recipe: they are told only where it is the one that the receipts have.
    if step.settings and set(step.recipes) <= {step.wanted}:
        yield from _wrapped([f"{key}={_value(value)}" for key, value in step.settings.items()], "  ")


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 1]}…"


def _wrapped(parts: list[str], between: str) -> Iterator[str]:
    """Parts side by side, in lines of an indent."""
    line = ""
    for part in parts:
        if line and len(line) + len(between) + len(part) > _COLUMNS:
            yield f"    {line}"
            line = ""
        line = f"{line}{between if line else ''}{part}"
    if line:
        yield f"    {line}"
