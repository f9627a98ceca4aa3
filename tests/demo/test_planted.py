"""The planted cohort: what is drawn is what was meant, and the workflow takes it as it is."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr, ttest_1samp
from typer.testing import CliRunner

from histill import plan
from histill.cli import app
from histill.cohort import stage as cohort_stage
from histill.demo.planted import ENCODER, make, slide_id
from histill.demo.planted_design import (
    CHILD_KEEPS,
    FACTORS,
    KINDS,
    TILE_PX,
    Appearance,
    draw_counts,
    draw_patients,
    partners,
    slide_stream,
)
from histill.errors import HistillError
from histill.evaluation.metrics import comparable_pairs, concordance
from histill.features.store import group_names, read_group, write_store
from histill.provenance import file_digest
from histill.subspaces import SUBSPACES
from histill.transcriptome import stage as transcriptome_stage

SIZE = {"patients": 30, "tiles": 40, "dim": 16, "seed": 3}
NAMING_THE_FOLDER = {"slides.csv", "config.yaml", "README.txt"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    make(folder, write_store, **SIZE)
    return folder


@pytest.fixture(scope="module")
def permuted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("permuted")
    make(folder, write_store, **SIZE, permute_genes=True)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def counts(folder: Path) -> tuple[list[str], np.ndarray]:
    lines = [
        line.split("\t") for line in gzip.decompress((folder / "expression.tsv.gz").read_bytes()).decode().split("\n")
    ]
    return lines[0][1:], np.array([line[1:] for line in lines[1:-1]], dtype=np.int64)


def neighbours(spatial: np.ndarray, step: int) -> np.ndarray:
    """Pairs [M, 2] of tiles that share an edge."""
    distance = np.abs(spatial[:, None] - spatial[None]).sum(axis=2)
    return np.argwhere(distance == step)


def test_same_seed_gives_the_same_bytes(planted, tmp_path):
    make(tmp_path, write_store, **SIZE)
    first, second = digests(planted), digests(tmp_path)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == NAMING_THE_FOLDER


def test_permuting_changes_the_pairs_and_nothing_else(planted, permuted):
    first, second = digests(planted), digests(permuted)
    assert {name for name in first if first[name] != second[name]} == NAMING_THE_FOLDER | {"expression.tsv.gz"}
    (names, true), (same, shuffled) = counts(planted), counts(permuted)
    assert names == same
    np.testing.assert_array_equal(shuffled, true[:, partners(SIZE["patients"], SIZE["seed"])])
    assert not (shuffled == true).all(axis=0).any(), "a patient has kept its own transcriptome"
    assert "permuted over the patients" in (permuted / "README.txt").read_text()


def test_every_patient_gets_the_transcriptome_of_another():
    other = partners(50, 0)
    assert sorted(other) == list(range(50))
    assert (other != np.arange(50)).all()


def test_stores_hold_both_magnifications_and_the_truth_fits_them(planted):
    truth = pq.read_table(planted / "truth.parquet").to_pandas()
    assert set(truth["cluster"]) == set(KINDS)
    for index in range(3):
        slide = slide_id(f"PLA-{index + 1:03d}")
        store = planted / "results" / "features" / ENCODER / f"{slide}.zarr"
        assert group_names(store) == ["10x", "20x"]
        coarse, fine = read_group(store, "10x"), read_group(store, "20x")
        assert (coarse.x.shape, fine.x.shape) == ((10, 16), (40, 16))
        assert (coarse.obs["parent"] == -1).all()
        offset = fine.spatial - coarse.spatial[fine.obs["parent"]]
        assert np.unique(fine.obs["parent"], return_counts=True)[1].tolist() == [4] * 10
        assert set(map(tuple, offset.tolist())) == {(x, y) for x in (0, TILE_PX) for y in (0, TILE_PX)}
        for name, group in (("10x", coarse), ("20x", fine)):
            rows = truth[(truth["slide"] == slide) & (truth["magnification"] == name)]
            assert rows["tile"].tolist() == list(range(len(group.x)))


@pytest.fixture(scope="module")
def slides():
    cohort = draw_patients(80, 0)
    appearance = Appearance(32, 0)
    factors = [{k: z[index] for k, z in cohort.factors.items()} for index in range(80)]
    return cohort, appearance, [appearance.slide(own, 160, slide_stream(0, i)) for i, own in enumerate(factors)]


def test_kinds_lie_together_and_children_mostly_follow_their_parent(slides):
    together, chance, kept = [], [], []
    for levels in slides[2]:
        coarse, fine = levels["10x"], levels["20x"]
        pairs = neighbours(coarse.spatial, 2 * TILE_PX)
        assert set(pairs.ravel()) == set(range(40)), "a tile has no neighbour"
        together.append((coarse.kind[pairs[:, 0]] == coarse.kind[pairs[:, 1]]).mean())
        chance.append((np.bincount(coarse.kind, minlength=3) ** 2).sum() / 40**2)
        kept.append((fine.kind == coarse.kind[fine.obs["parent"]]).mean())
    assert np.mean(together) > np.mean(chance) + 0.25
    assert CHILD_KEEPS < np.mean(kept) < CHILD_KEEPS + 0.08  # one that is drawn anew may be of the same kind


@pytest.mark.parametrize("level", ["10x", "20x"])
def test_tiles_show_their_own_factor_alone_and_as_noisily_as_said(slides, level):
    cohort, appearance, bags = slides
    for kind, name in enumerate(KINDS):
        means = np.array([bag[level].x[bag[level].kind == kind].mean(axis=0, dtype=np.float64) for bag in bags])
        shown = means @ appearance.directions.reshape(-1, 32).T
        for index, subspace in enumerate(SUBSPACES):
            for number in range(FACTORS):
                r = np.corrcoef(shown[:, index * FACTORS + number], cohort.factors[subspace][:, number])[0, 1]
                assert 0.6 < r < 0.95 if name == subspace else abs(r) < 0.4, (
                    f"{name} tiles, {subspace} {number}: {r:.2f}"
                )


def test_how_much_of_a_kind_there_is_says_nothing(slides):
    cohort, _, bags = slides
    for kind in range(len(KINDS)):
        share = [(bag["20x"].kind == kind).mean() for bag in bags]
        assert np.std(share) > 0.05
        assert all(abs(spearmanr(share, column)[0]) < 0.4 for z in cohort.factors.values() for column in z.T)


def test_genes_tell_the_factors_of_patients_that_were_not_seen():
    from sklearn.linear_model import RidgeCV

    cohort = draw_patients(240, 0)
    genes, table = draw_counts(cohort, 0)
    assert genes == sorted(set(genes))
    assert table.shape == (len(genes), 240)
    log = np.log2(1e6 * table / table.sum(axis=0) + 1).T
    for z in cohort.factors.values():
        model = RidgeCV(np.logspace(0, 6, 7)).fit(log[:160], z[:160])
        assert model.score(log[160:], z[160:]) > 0.9


def test_outcomes_follow_both_factors_with_noise():
    cohort = draw_patients(2000, 0)
    assert 0.25 < 1 - cohort.event.mean() < 0.35
    assert np.bincount(cohort.diagnosis).min() > 0.2 * 2000
    pairs = comparable_pairs(cohort.event, cohort.months)
    x = np.hstack(list(cohort.factors.values()))
    # A linear fit of log time ranks patients as the true hazard does, which is linear in the factors.
    risk = -x @ np.linalg.lstsq(x, np.log(cohort.months), rcond=None)[0]
    both = concordance(pairs, risk, np.ones((1, 2000)))[0]
    assert 0.67 < both < 0.75
    for half in (slice(0, FACTORS), slice(FACTORS, None)):
        risk = -x[:, half] @ np.linalg.lstsq(x[:, half], np.log(cohort.months), rcond=None)[0]
        assert 0.58 < concordance(pairs, risk, np.ones((1, 2000)))[0] < both - 0.02


def test_the_stages_before_training_take_it(planted):
    checked = plan.load(planted / "config.yaml")
    assert checked.imports
    transcriptome_stage.run(path=checked.sheets.expression, config=checked.config, results=checked.results)
    receipt = cohort_stage.run(sheets=checked.sheets, config=checked.config, results=checked.results)
    assert receipt["counts"]["with_both"] == SIZE["patients"]
    assert receipt["counts"]["without_outcome:survival"] == receipt["counts"]["without_outcome:diagnosis"] == 0


def test_the_workflow_has_the_features_already(planted, root, tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "-s", str(root / "Snakefile")]
    done = subprocess.run(
        [*command, "--configfile", str(planted / "config.yaml")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = set(re.findall(r"^(?:local)?rule (\w+):", done.stdout, re.MULTILINE))
    assert {"train_runs", "predict", "evaluate", "report"} <= rules
    assert "features" not in rules


def test_command_writes_the_folder(tmp_path):
    arguments = ["--patients", "30", "--tiles", "12", "--dim", "8", "--permute-genes"]
    done = CliRunner().invoke(app, ["demo", "planted", "--out", str(tmp_path / "p"), *arguments])
    assert done.exit_code == 0, done.output
    with open(tmp_path / "p" / "clinical.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 30


@pytest.mark.parametrize("size", [{"tiles": 42}, {"tiles": 8}, {"dim": 5}])
def test_sizes_that_cannot_be_had_are_refused(tmp_path, size):
    with pytest.raises(HistillError, match=next(iter(size))):
        make(tmp_path, write_store, **{**SIZE, **size})
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def benchmark(root):
    spec = importlib.util.spec_from_file_location("benchmark_planted", root / "benchmarks" / "planted.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_benchmark_scores_maps_of_tiles(benchmark):
    clusters = np.array(KINDS * 4)
    weights = np.where(clusters[:, None] == np.array(SUBSPACES), 2.0, 0.5)
    assert benchmark.rand_indices(weights, clusters) == (1, 1)
    two, three = benchmark.rand_indices(weights[:, ::-1], clusters)
    assert (two, three) == (1, 1), "the index does not depend on names"
    two, three = benchmark.rand_indices(np.where(clusters[:, None] == "other", 2.0, weights), clusters)
    assert two == 1
    assert three < 0.8, "others that are given to a subspace count in the three kinds"
    blind = np.random.default_rng(0).normal(1, 0.1, (3000, 2))
    assert all(abs(value) < 0.02 for value in benchmark.rand_indices(blind, np.array(KINDS * 1000)))


def test_benchmark_interval_of_seeds_is_that_of_the_t_test(benchmark):
    values = [0.01, 0.03, 0.02, 0.05, 0.04]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(benchmark.interval_of_seeds(values), (expected.low, expected.high))
