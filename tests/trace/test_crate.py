"""The run as a Workflow Run RO-Crate: what the specifications demand, right digests, and nobody's name."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest

from histill.errors import HistillError
from histill.provenance import read_json
from histill.trace import crate

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def kinds(entity) -> list[str]:
    return [entity["@type"]] if isinstance(entity["@type"], str) else entity["@type"]


def referenced(value) -> set[str]:
    """Every `@id` that is referred to below a value."""
    if isinstance(value, dict):
        return {value["@id"]} if set(value) == {"@id"} else {one for part in value.values() for one in referenced(part)}
    if isinstance(value, list):
        return {one for part in value for one in referenced(part)}
    return set()


def one(value) -> list:
    return value if isinstance(value, list) else [value]


def faults(content, folder) -> list[str]:
    """What RO-Crate 1.1, Workflow RO-Crate 1.0 and the Process and Workflow Run Crate 0.5 demand, and is not so."""
    found = []
    graph = content["@graph"]
    ids = [entity.get("@id") for entity in graph]
    entities = dict(zip(ids, graph, strict=True))

    def demand(holds, what):
        if not holds:
            found.append(what)

    demand("https://w3id.org/ro/crate/1.1/context" in one(content["@context"]), "context of RO-Crate 1.1")
    demand(all(ids) and len(ids) == len(set(ids)), "every entity has an @id of its own")
    demand(all(kinds(entity) for entity in graph), "every entity has a @type")
    for entity in graph:
        # Flattened: what is nested is a reference.
        nested = [part for key, value in entity.items() if key != "@type" for part in one(value)]
        demand(all(set(part) == {"@id"} for part in nested if isinstance(part, dict)), f"{entity['@id']} is flat")
    outside = {link for link in referenced(graph) if link not in entities and not link.startswith("http")}
    demand(not outside, f"referenced and not described: {outside}")

    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    demand(kinds(descriptor) == ["CreativeWork"], "type of the descriptor")
    demand(descriptor["about"] == {"@id": "./"}, "the descriptor is about the root")
    demand({"@id": "https://w3id.org/ro/crate/1.1"} in one(descriptor["conformsTo"]), "specification of the descriptor")
    demand("Dataset" in kinds(root), "type of the root")
    for key in ("name", "description", "license", "datePublished"):
        demand(root.get(key), f"the root has {key}")
    datetime.fromisoformat(root["datePublished"])
    demand({"@id": "https://w3id.org/ro/wfrun/workflow/0.5"} in root["conformsTo"], "profile of the root")
    for profile in one(root["conformsTo"]):
        demand("CreativeWork" in kinds(entities[profile["@id"]]), f"{profile['@id']} is a CreativeWork")

    parts = {part["@id"] for part in root["hasPart"]}
    data = {key for key, entity in entities.items() if {"File", "Dataset"} & set(kinds(entity)) and key != "./"}
    demand(parts == data, f"hasPart and the data entities differ: {parts ^ data}")
    for part in parts:
        place = folder / unquote(part)
        demand(place.is_dir() if part.endswith("/") else place.is_file(), f"{part} is there")

    main = entities[root["mainEntity"]["@id"]]
    demand(set(kinds(main)) == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}, "type of the main workflow")
    demand("ComputerLanguage" in kinds(entities[main["programmingLanguage"]["@id"]]), "language of the main workflow")
    for parameter in (*one(main.get("input", [])), *one(main.get("output", []))):
        demand("FormalParameter" in kinds(entities[parameter["@id"]]), "parameters are FormalParameter")
        demand(entities[parameter["@id"]].get("additionalType"), "parameters have an additionalType")

    actions = [entity for entity in graph if "CreateAction" in kinds(entity)]
    demand(actions, "there is an action")
    for action in actions:
        demand({"@id": action["@id"]} in root["mentions"], "the root mentions the action")
        demand(action["instrument"] == root["mainEntity"], "the instrument is the main workflow")
        for key in ("startTime", "endTime"):
            demand(datetime.fromisoformat(action[key]).tzinfo, f"{key} with its zone")
        objects = {"File", "Dataset", "Collection", "CreativeWork", "PropertyValue"}
        for link in (*action["object"], *action["result"]):
            demand(objects & set(kinds(entities[link["@id"]])), f"{link['@id']} may be object or result")
    for entity in graph:
        if "SoftwareApplication" in kinds(entity):
            demand(entity.get("name") and entity.get("softwareVersion"), f"{entity['@id']} has name and version")
    return found


@pytest.fixture
def written(run, root):
    path = crate.write(run, read_json(run / "config.json"), snakefile=root / "Snakefile")
    return read_json(path), run


def test_crate_is_what_the_specifications_demand(written):
    assert not faults(*written)


def test_checker_sees_what_is_wrong(written):
    content, folder = written
    (folder / "report.html").unlink()
    next(entity for entity in content["@graph"] if entity["@id"] == "#run")["instrument"] = {"@id": "#nothing"}
    assert faults(content, folder) == [
        "referenced and not described: {'#nothing'}",
        "report.html is there",
        "the instrument is the main workflow",
    ]


def test_digests_and_sizes_are_those_of_the_files(written):
    content, folder = written
    files = [entity for entity in content["@graph"] if "sha256" in entity]
    named = {entity["@id"] for entity in files}
    assert {
        "report.html",
        "config.json",
        "workflow/Snakefile",
        "evaluation/diagnosis.json",
        "cohort/folds.json",
    } <= named
    assert "models/diagnosis/linear-both/fold0-seed0/train/predictions.parquet" in named
    for entity in files:
        bytes_ = (folder / unquote(entity["@id"])).read_bytes()
        assert entity["sha256"] == hashlib.sha256(bytes_).hexdigest()
        assert entity["contentSize"] == str(len(bytes_))


def test_crate_holds_the_versions_that_computed(written):
    from histill.software import record

    versions = {
        entity["name"]: entity["softwareVersion"] for entity in written[0]["@graph"] if "softwareVersion" in entity
    }
    assert versions == {"histill": record()["histill"], "python": record()["python"], **record()["packages"]}


def test_crate_names_no_patient_no_slide_no_person_and_no_path_of_the_machine(written, finished_run):
    content, _ = written
    text = json.dumps(content)
    assert not re.search(r"PLA-\d", text)  # ids of patients and slides of a planted cohort
    assert str(finished_run.parent) not in text
    assert not re.search(r'"/|"\.\./|Person|"agent"', text)


def test_crate_is_the_same_but_for_its_times(written):
    _, run = written
    config = read_json(run / "config.json")
    first = crate.describe(run, config, now=NOW)
    assert first == crate.describe(run, config, now=NOW)
    later = json.dumps(crate.describe(run, config, now=NOW.replace(year=2027)))
    assert json.dumps(first) == later.replace("2027-", "2026-")


def test_crate_without_a_workflow_file_describes_the_process(run):
    content = crate.describe(run, read_json(run / "config.json"), now=NOW, workflow=False)
    entities = {entity["@id"]: entity for entity in content["@graph"]}
    assert "mainEntity" not in entities["./"]
    assert entities["#run"]["instrument"] == {"@id": "#histill"}
    assert entities["./"]["conformsTo"] == [{"@id": "https://w3id.org/ro/wfrun/process/0.5"}]
    assert referenced(content["@graph"]) <= {*entities, "https://w3id.org/ro/crate/1.1"}


def test_a_result_that_is_gone_is_named(written):
    _, run = written
    (run / "models/diagnosis/linear-both/fold0-seed0/train/config.json").unlink()
    with pytest.raises(HistillError, match=r"fold0-seed0/train/config\.json is gone"):
        crate.describe(run, read_json(run / "config.json"), now=NOW)


@pytest.mark.parametrize("name", ["receipts/features.json", "receipts/cohort.json"])
def test_a_run_that_is_not_whole_has_no_crate(run, name):
    (run / name).unlink()
    with pytest.raises(HistillError, match=f"{name} is gone"):
        crate.describe(run, read_json(run / "config.json"), now=NOW)
