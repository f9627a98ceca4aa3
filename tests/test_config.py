from __future__ import annotations

import re

import pytest
import yaml

from histill import config
from histill.errors import ConfigError, HistillError


def problems(options) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.complete(options)
    return caught.value.problems


def test_defaults_are_filled_at_every_depth():
    complete = config.complete(
        {"results": "r", "demo": {}, "tasks": {"os": {"type": "survival", "time": "t", "event": "e"}}}
    )
    assert complete["demo"]["patients"] == 48
    assert complete["methods"]["disentangled"]["student"]["temperature"] == 2.0
    assert complete["tasks"]["os"]["bins"] == 4


def test_the_given_config_is_not_changed():
    given = {"results": "r", "demo": {}}
    config.complete(given)
    assert given == {"results": "r", "demo": {}}


def test_all_problems_are_listed_at_once_with_their_keys():
    found = problems(
        {
            "results": "r",
            "demo": {"patients": "many"},
            "tisue": {},
            "tiles": {"overlap": 0.5, "sise": 1},
            "tasks": {"x": {"type": "survival", "time": "t"}},
        }
    )
    text = "\n".join(found)
    for part in (
        "'tisue' (did you mean 'tissue'?)",
        "'sise' (did you mean 'size'?)",
        "demo.patients",
        "tiles.overlap",
        "tasks.x",
    ):
        assert part in text, part


@pytest.mark.parametrize("given", [{"results": "r"}, {"results": "r", "demo": {}, "cohort": {}}])
def test_demo_or_cohort_not_both_and_not_neither(given):
    assert "either 'demo'" in problems(given)[0]


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(HistillError, match=r"none\.yaml"):
        config.load(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\n")
    with pytest.raises(HistillError, match=r"broken\.yaml"):
        config.load(broken)
    broken.write_text("- a\n")
    with pytest.raises(HistillError, match="no mapping"):
        config.load(broken)


def test_config_yaml_is_valid_and_comments_every_key(root):
    text = (root / "config.yaml").read_text()
    complete = config.complete(yaml.safe_load(text))
    # Every key of the schema stands in the file, so that a reader finds all there is (cohort's in comments).
    for key in set(_keys(config.schema("config"))):
        assert re.search(rf"(^|[\s#{{,]){re.escape(key)}:", text), f"config.yaml does not show '{key}'"
    given = yaml.safe_load(text)
    defaults = config.complete({"results": "results", "demo": {}})
    said = {"batch_size", "folds", "tasks"}  # these differ on purpose; the file says so
    assert {key for key in complete if complete[key] != defaults[key]} <= said
    assert set(given) <= set(complete)


def _keys(form):
    for key, sub in form.get("properties", {}).items():
        yield key
        yield from _keys(sub)
