"""The page: facts in, one self-contained HTML text out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from histill.report import wording

TEMPLATES = Path(__file__).parent / "templates"


def render(facts: dict[str, Any]) -> str:
    """The HTML text of `facts` (`histill.report.stage.collect`); all values are escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "num": wording.number,
        "signed": wording.signed,
        "interval": wording.interval,
        "count": wording.thousands,
        "seconds": wording.duration,
        "p": wording.p_value,
        "plain_p": wording.plain_p,
        "plural": wording.plural,
        "percent": wording.percent,
        "direction": wording.direction,
    }
    return environment.get_template("report.html.j2").render(**facts)
