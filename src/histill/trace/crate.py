"""A finished run as a Workflow Run RO-Crate: `ro-crate-metadata.json` of the results folder, and the Snakefile.

Written by hand against RO-Crate 1.1 (https://w3id.org/ro/crate/1.1), Workflow RO-Crate 1.0 and Workflow Run Crate 0.5
(https://w3id.org/ro/wfrun/workflow/0.5). Slides, and whatever is named after them, are summed up: the crate holds no id
of a slide or a patient, no path outside the results, and no person.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from histill.errors import HistillError
from histill.provenance import atomic_file, digest, write_json
from histill.redact import redact
from histill.software import record
from histill.stages import SLIDE_STAGES
from histill.trace.chain import Chain, Step
from histill.trace.records import Records

METADATA, WORKFLOW = "ro-crate-metadata.json", "workflow/Snakefile"
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
_CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
_SPECIFICATION = "https://w3id.org/ro/crate/1.1"
_SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
_LICENCE = "https://spdx.org/licenses/Apache-2.0"
_FORMATS = {
    ".csv": "text/csv",
    ".h5ad": "application/x-hdf5",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".tsv": "text/tab-separated-values",
}
_INPUTS = {"slides": "slides", "features": "imported features", "expression": "expression table"}
Entity = dict[str, Any]


def write(results: Path, config: dict[str, Any], *, snakefile: Path | None = None) -> Path:
    """Write the crate's metadata, and a copy of the Snakefile below `workflow/`.

    Parameters
    ----------
    config
        Complete config of the run.
    snakefile
        Of the run; None: the crate describes the processes, and no workflow file.

    Returns
    -------
    Path of the metadata. But for `startTime`, `endTime` and `datePublished`, the same results give the same bytes.
    """
    if snakefile is not None:
        with atomic_file(results / WORKFLOW) as part:
            shutil.copyfile(snakefile, part)
    write_json(results / METADATA, describe(results, config, now=datetime.now(UTC), workflow=snakefile is not None))
    return results / METADATA


def describe(results: Path, config: dict[str, Any], *, now: datetime, workflow: bool = True) -> dict[str, Any]:
    """Content of ro-crate-metadata.json of a finished run.

    Parameters
    ----------
    now
        When the run ended; it began when `config.json` was written.
    workflow
        Whether the Snakefile lies in the crate.

    Raises
    ------
    HistillError
        Where a receipt, or what one names, is gone.
    """
    chain = Chain(Records(results))
    chain.report()
    # Tables and pages of an earlier version have no receipt; these always had.
    first = (step for name, step in chain.steps.items() if name in (*SLIDE_STAGES, "transcriptome", "cohort", "audit"))
    if gone := [name for step in first for name in step.missing]:
        raise HistillError(f"{results / gone[0]} is gone: the run is not whole", mend="run snakemake again")
    began = datetime.fromtimestamp(os.stat(results / "config.json").st_mtime, UTC)
    # Named by its receipt, which a page of an earlier version lacks.
    made = [_file(results, name) for name in sorted({"report.html", *_named(chain.steps.values())})]
    summed = _summed(results, chain)
    settings = _file(results, "config.json") | {"name": "Complete config of the run"}
    given = _given(chain)
    software = _software()
    instrument = WORKFLOW if workflow else "#histill"
    action = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": "Run of histill",
        "description": "snakemake --cores all --configfile config.yaml",
        "startTime": _time(began),
        "endTime": _time(now),
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
        "instrument": {"@id": instrument},
        "object": _references([settings, *given]),
        "result": _references([*made, *summed]),
    }
    main = _main(results) if workflow else []
    parts = [entity for entity in (*main[:1], settings, *made, *summed) if not entity["@id"].startswith("#")]
    profiles = _PROFILES if workflow else dict(list(_PROFILES.items())[:1])
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": redact(config["report"]["title"]),
        "description": "Results of histill: models that need the slide alone, their predictions, scores and report.",
        "datePublished": _time(now),
        # The workflow's; what may be done with the results is for the owner of the data to say.
        "license": {"@id": _LICENCE},
        "conformsTo": [{"@id": profile} for profile in profiles],
        "hasPart": _references(parts),
        "mentions": [{"@id": "#run"}, *_references(given)],
    }
    if workflow:
        root["mainEntity"] = {"@id": WORKFLOW}
    contextual = [
        *({"@id": link, "@type": "CreativeWork", "name": name, "version": v} for link, (name, v) in profiles.items()),
        {"@id": _LICENCE, "@type": "CreativeWork", "name": "Apache License 2.0", "identifier": _LICENCE},
        {"@id": "http://schema.org/CompletedActionStatus", "@type": "ActionStatusType", "name": "Completed"},
    ]
    descriptor = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": [{"@id": _SPECIFICATION}, *([{"@id": list(_PROFILES)[2]}] if workflow else [])],
    }
    graph = [descriptor, root, *main, action, settings, *given, *made, *summed, *software, *contextual]
    return {"@context": _CONTEXT, "@graph": graph}


def _named(steps: Iterable[Step]) -> set[str]:
    """Outputs that carry no id of a slide in their names."""
    return {name for step in steps if step.name not in SLIDE_STAGES for name in step.outputs}


def _file(results: Path, name: str) -> Entity:
    path = results / name
    if not path.is_file():
        raise HistillError(f"{path} is gone, which a receipt names", mend="run snakemake again: it is made anew")
    with open(path, "rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    return {
        "@id": quote(name),
        "@type": "File",
        "name": name,
        "contentSize": str(path.stat().st_size),
        "encodingFormat": _FORMATS.get(path.suffix, "application/octet-stream"),
        "sha256": sha256,
    }


def _summed(results: Path, chain: Chain) -> list[Entity]:
    """What is kept slide by slide: how many there are, and one digest of them all."""
    folders: dict[str, dict[str, str]] = {}
    for stage in SLIDE_STAGES:
        for name, made in chain.steps[stage].outputs.items() if stage in chain.steps else ():
            depth = 2 if name.startswith("features/") else 1
            folders.setdefault("/".join(name.split("/")[:depth]), {})[name] = made
    return [
        {
            "@id": f"{quote(folder)}/",
            "@type": "Dataset",
            "name": folder,
            "description": f"{len(made)} outputs of slides, by slide; histill trace compares each with its digest",
            "identifier": f"histill:{digest(made)}",
        }
        for folder, made in sorted(folders.items())
    ]


def _given(chain: Chain) -> list[Entity]:
    """What went in, by digest."""
    first = next((stage for stage in SLIDE_STAGES if stage in chain.steps), None)
    found = {}
    if first:
        step = chain.steps[first]
        found["slides" if first == "inspect" else "features"] = (step.inputs["slides"], sum(step.states.values()))
    if "transcriptome" in chain.steps:
        found["expression"] = (chain.steps["transcriptome"].inputs.get("expression"), None)
    return [
        {
            "@id": f"#{key}",
            "@type": "Collection" if count else "CreativeWork",
            "name": _INPUTS[key],
            "description": f"{count} slides" if count else "samples by genes",
            "identifier": f"histill:{made if isinstance(made, str) else digest(made)}",
            **({"size": str(count)} if count else {}),
        }
        for key, (made, count) in found.items()
    ]


def _main(results: Path) -> list[Entity]:
    """The workflow, its language and its parameters."""
    workflow = _file(results, WORKFLOW) | {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "histill",
        "encodingFormat": "text/x-python",
        "description": "Whole-slide images and bulk transcriptomes in, a model that needs the slide alone out",
        "version": record()["histill"],
        "license": {"@id": _LICENCE},
        "programmingLanguage": {"@id": _SNAKEMAKE},
        "softwareRequirements": [{"@id": "#histill"}],
        "input": [{"@id": "#parameter-config"}],
    }
    if record()["commit"]:
        workflow["identifier"] = f"git:{record()['commit']}"
    language = {
        "@id": _SNAKEMAKE,
        "@type": "ComputerLanguage",
        "name": "Snakemake",
        "identifier": {"@id": "https://doi.org/10.1093/bioinformatics/bts480"},
        "url": {"@id": "https://snakemake.readthedocs.io"},
        "version": record()["packages"].get("snakemake", ""),
    }
    parameter = {
        "@id": "#parameter-config",
        "@type": "FormalParameter",
        "additionalType": "File",
        "name": "config",
        "description": "The config file: slides, sheets, tasks, methods",
    }
    return [workflow, language, parameter]


def _software() -> list[Entity]:
    """histill, Python and the packages, as they are where the crate is written."""
    known = record()
    packages = {"python": known["python"], **known["packages"]}
    own = {
        "@id": "#histill",
        "@type": "SoftwareApplication",
        "name": "histill",
        "softwareVersion": known["histill"],
        "identifier": f"histill:{known['source']}",
        "softwareRequirements": [{"@id": f"#{name}"} for name in packages],
    }
    others = [
        {"@id": f"#{name}", "@type": "SoftwareApplication", "name": name, "softwareVersion": version}
        for name, version in packages.items()
    ]
    return [own, *others]


def _references(entities: Iterable[Entity]) -> list[dict[str, str]]:
    return [{"@id": entity["@id"]} for entity in entities]


def _time(moment: datetime) -> str:
    return moment.replace(microsecond=0).isoformat()
