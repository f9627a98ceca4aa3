"""Which methods stand side by side, and what a change of the config makes of the table."""

from __future__ import annotations

import pytest

from histill.config import complete
from histill.errors import ConfigError
from histill.methods import benchmark
from histill.stages import MODELS

TASKS = {"os": {"type": "survival", "time": "time", "event": "event"}}
WITHOUT_RNA = ["wsi-only", "meanpool", "abmil", "transmil", "linear-slide"]


def config_of(expression="genes.tsv", tasks=TASKS, methods=None, run=("linear-slide",)):
    return complete(
        {
            "results": "r",
            "cohort": {"expression": expression},
            "tasks": tasks,
            "methods": {"run": list(run)},
            "benchmark": {"methods": methods},
        }
    )


def test_all_methods_that_the_cohort_allows():
    assert benchmark.methods(config_of()) == list(MODELS)
    assert benchmark.left_out(config_of()) == []
    bare = config_of(expression=None)
    assert benchmark.methods(bare) == WITHOUT_RNA
    assert benchmark.left_out(bare) == [method for method in MODELS if method not in WITHOUT_RNA]
    assert benchmark.check(bare) == []
    assert benchmark.methods(complete({"results": "r", "demo": {}})) == list(MODELS)


def test_named_methods_stand_in_the_order_of_all():
    config = config_of(methods=["mcat", "wsi-only", "disentangled"])
    assert benchmark.methods(config) == ["disentangled", "wsi-only", "mcat"]
    assert ("disentangled", "teacher") in benchmark.training_stages(config)
    assert benchmark.left_out(config) == []


def test_every_method_can_be_asked_for_in_both_places():
    assert benchmark.methods(config_of(methods=list(MODELS), run=list(MODELS))) == list(MODELS)
    with pytest.raises(ConfigError, match=r"benchmark\.methods"):
        config_of(methods=["resnet"])
    with pytest.raises(ConfigError, match=r"benchmark\.methods"):
        config_of(methods=[])


def test_a_benchmark_that_cannot_be_made_says_why():
    assert benchmark.check(config_of(methods=["wsi-only"])) == []
    found = benchmark.check(config_of(expression=None, methods=["retrieval", "wsi-only"]))
    assert len(found) == 1
    assert "'retrieval' needs transcriptomes" in found[0]
    assert "there is no task" in benchmark.check(config_of(tasks={}))[0]


def test_the_config_of_the_run_is_not_changed():
    config = config_of(methods=["mcat"])
    assert benchmark.configure(config)["methods"]["run"] == ["mcat"]
    assert config["methods"]["run"] == ["linear-slide"]
    assert not benchmark.holds_the_run(config)
    assert benchmark.holds_the_run(config_of())


def test_the_table_is_made_again_for_what_it_shows_alone():
    def recipe(**options):
        return benchmark.table_recipe(config_of(**options), task="os")

    assert recipe() == recipe(run=["abmil"]) == recipe(methods=list(MODELS))
    assert recipe() != recipe(methods=["mcat"])
    other = config_of()
    other["evaluation"]["bootstrap"] = 123
    assert benchmark.table_recipe(other, task="os") != recipe()
