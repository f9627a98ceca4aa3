"""`histill trace`: the chain behind a result, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histill.errors import HistillError
from histill.trace import alone, text
from histill.trace.check import check
from histill.trace.records import Records, results_of
from histill.trace.target import chain_of


def trace(path: Path, *, slides: bool = False, deep: bool = False) -> tuple[dict[str, Any], str]:
    """What is known of a result, as JSON and as text.

    Parameters
    ----------
    path
        A file or folder below the results of a run; or a bundle, or what `histill predict` wrote, wherever they lie.
    slides
        Name every slide.
    deep
        Read feature stores whole.

    Raises
    ------
    HistillError
        If nothing is known of such a path.
    """
    try:
        results, below = results_of(path)
    except HistillError:
        if path.exists() and (found := alone.find(path)):
            return found
        raise
    chain, last = chain_of(Records(results), below)
    found = text.told(chain, last, check(chain, deep=deep), slides=slides)
    return found, "\n".join(text.lines(found, chain))
