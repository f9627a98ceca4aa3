"""The benchmark of MSRL: what its variants change, and what they may share."""

import importlib.util
import sys

import numpy as np
import pandas
import pytest

from histill.config import complete
from histill.stages import PRETRAIN, model_recipe


@pytest.fixture(scope="module")
def benchmark(root):
    spec = importlib.util.spec_from_file_location("benchmark_msrl", root / "benchmarks" / "msrl.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def config():
    return complete({"cohort": {}})


def test_variants_share_pre_training_where_it_is_the_same(benchmark, config):
    def pretraining(variant):
        return model_recipe("msrl", "pretrain", variant.configure(config), task=PRETRAIN)

    variants = {**benchmark.VARIANTS, **benchmark.hiding([0.0, 0.3])}
    own = {name for name, variant in variants.items() if pretraining(variant) != pretraining(variants["student"])}
    assert own == {"no-graph", "no-unit", "cosine-no-unit", "euclidean-no-unit", "student 0.3", "ridge 0.3"}


def test_a_variant_changes_what_it_names(benchmark, config):
    methods = benchmark.VARIANTS["no-graph"].configure(config)["methods"]
    assert methods["msrl"]["model"].pop("neighbours") == 0
    assert (methods["msrl"]["student"].pop("lambda_graph"), methods["msrl"]["student"].pop("lambda_structure")) == (
        0,
        0,
    )
    expected = complete({"cohort": {}})["methods"]
    del expected["msrl"]["model"]["neighbours"]
    del expected["msrl"]["student"]["lambda_graph"], expected["msrl"]["student"]["lambda_structure"]
    assert methods == expected
    assert benchmark.hiding([0.3])["ridge 0.3"].configure(config)["training"]["hide_rna"] == 0.3


def test_stages_come_after_what_they_build_on(benchmark):
    assert list(benchmark._stages(benchmark.VARIANTS["both"])) == ["pretrain", "student", "both"]
    assert list(benchmark._stages(benchmark.VARIANTS["slide"])) == ["pretrain_slide", "slide"]


def test_every_difference_is_of_rows_that_exist(benchmark):
    named = {name for pair in benchmark.DIFFERENCES for name in pair}
    assert named <= {*benchmark.VARIANTS, "permuted"}
    titles = [variant.name for variant in benchmark.VARIANTS.values()]
    assert len(set(titles)) == len(titles), "scores are kept by title"


def test_permuted_table_has_the_same_patients_and_the_same_rows(benchmark, tmp_path):
    table = pandas.DataFrame(np.arange(60.0).reshape(20, 3), index=pandas.Index([f"P{i}" for i in range(20)]))
    table.columns = ["A", "B", "C"]
    table.to_parquet(tmp_path / "rna.parquet")
    permuted = pandas.read_parquet(benchmark.permute(tmp_path / "rna.parquet", tmp_path / "own" / "rna.parquet"))
    assert list(permuted.index) == list(table.index)
    assert sorted(map(tuple, permuted.to_numpy())) == sorted(map(tuple, table.to_numpy()))
    assert (permuted["A"] == table["A"]).mean() < 0.5
