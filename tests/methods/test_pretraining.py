"""Pre-training without labels: whom it sees, when it is done again, and that it finds pairs."""

from __future__ import annotations

import copy
from itertools import pairwise

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histill.cohort.folds import OUTSIDE
from histill.data.expression_table import ExpressionTable
from histill.data.fold import TRAIN, Cohort
from histill.evaluation.alignment import retrieval
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.provenance import file_digest, read_json, write_json
from histill.stages import MODELS, PRETRAIN, model_recipe, predictors
from histill.transcriptome.stage import OUTPUT

METHODS = ("mirror", "msrl")
FOLD = 0


@pytest.fixture(scope="module")
def brief(planted):
    results, config, _ = planted(45, epochs=2)
    return results, config


def paired(results) -> list[str]:
    """Patients with RNA that fold 0 does not test."""
    cohort = Cohort.read(results, "colour-texture")
    rows = zip(*(cohort.patients[name] for name in ("patient_id", "fold", "has_rna")), strict=True)
    return [patient for patient, fold, rna in rows if rna and fold != FOLD]


def digest_of(results, method) -> str:
    return file_digest(train.run_folder(results, PRETRAIN, method, PRETRAIN, FOLD, 0) / "model.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_patients_without_outcome_are_learned_from_and_those_outside_the_folds_are_not(
    brief, clone, train_stages, method
):
    cohort = Cohort.read(brief[0], "colour-texture")
    share = brief[1]["training"]["validation_fraction"]
    learned, outside = cohort.select_unlabelled(FOLD, TRAIN, share=share, slide=True, rna=True)[:2]
    nothing = {"time:os": None, "event:os": None, "label:dx": None}
    made = {}
    for corrupt in ((), (learned,), (outside,)):
        results, config = clone(*brief, corrupt=corrupt, patients={learned: nothing})
        folds = read_json(results / "cohort" / "folds.json")
        folds["assignment"][outside] = [OUTSIDE]
        write_json(results / "cohort" / "folds.json", folds)
        train_stages(results, config, method, PRETRAIN)
        made[corrupt] = digest_of(results, method)
    assert made[learned,] != made[()]
    assert made[outside,] == made[()]


@pytest.mark.parametrize("method", METHODS)
def test_it_is_done_once_for_all_tasks_and_not_again_for_a_further_one(brief, clone, train_stages, method):
    results, config = clone(*brief)
    first = next(stage for stage in predictors(method) if PRETRAIN in MODELS[method][stage].after)
    train_stages(results, config, method, PRETRAIN, first, task="os")
    before = digest_of(results, method)
    place = results / "cohort" / "patients.parquet"
    table = pq.read_table(place)
    pq.write_table(table.append_column("label:further", pa.array(["u", "v"] * 22 + ["u"])), place)
    receipt = read_json(results / "receipts" / "cohort.json")
    write_json(results / "receipts" / "cohort.json", {**receipt, "outputs": {"patients": "other"}})
    config["tasks"]["further"] = {"type": "classification", "label": "further"}
    said = train_stages(results, config, method, PRETRAIN, task="dx")
    assert said == [f"{method} pretrain fold 0 seed 0: up to date"]
    assert digest_of(results, method) == before


@pytest.mark.parametrize("method", METHODS)
def test_it_is_done_again_where_what_it_reads_has_changed(brief, clone, train_stages, tmp_path, method):
    """The content of the file of genes, and who has RNA; not what the stages after it do."""
    results, config = clone(*brief)
    genes = ExpressionTable.read(results, config).genes
    path = tmp_path / "genes"
    section, key = ("genes", "list") if method == "mirror" else ("model", "groups")
    config["methods"][method][section][key] = str(path)

    def write(number: int) -> None:
        path.write_text("\n".join(genes[:number]) if method == "mirror" else "\t".join(["one", "-", *genes[:number]]))

    found = []
    for number in (20, 30):
        write(number)
        train_stages(results, config, method, PRETRAIN)
        receipt = read_json(train.run_folder(results, PRETRAIN, method, PRETRAIN, FOLD, 0) / "receipt.json")
        found.append(receipt["figures"]["genes"])
    assert found == [20, 30]
    config["methods"]["mirror"]["probe"]["draws"] = 1
    config["methods"]["msrl"]["student"]["momentum"] = 0.5
    assert train_stages(results, config, method, PRETRAIN) == [f"{method} pretrain fold 0 seed 0: up to date"]
    patients = len(paired(results))
    config["training"]["hide_rna"] = 0.5
    train_stages(results, config, method, PRETRAIN)
    seen = read_json(train.run_folder(results, PRETRAIN, method, PRETRAIN, FOLD, 0) / "receipt.json")["figures"]
    assert seen["patients"] < 0.5 * patients


def test_it_is_done_again_where_patients_are_of_another_cohort(brief, clone, train_stages, tmp_path):
    results, config = clone(*brief)
    config["cohort"]["clinical"], config["methods"]["msrl"]["cohort"] = str(tmp_path / "clinical.csv"), "project"
    said = []
    for names in (("one", "two"), ("two", "one", "one")):
        rows = [f"P{number:03d},{names[number % len(names)]}" for number in range(45)]
        (tmp_path / "clinical.csv").write_text("\n".join(["patient_id,project", *rows]))
        said += train_stages(results, config, "msrl", PRETRAIN)
    assert "up to date" not in said[1]


def test_probes_are_made_again_for_their_own_options_and_not_the_encoders(brief):
    _, config = brief
    other = copy.deepcopy(config)
    other["methods"]["mirror"]["probe"]["draws"] = 1
    changed = {
        stage: model_recipe("mirror", stage, config, task="os") != model_recipe("mirror", stage, other, task="os")
        for stage in ("pretrain", "slide", "rna", "fused", "student")
    }
    assert changed == {"pretrain": False, "slide": True, "rna": True, "fused": True, "student": True}


def test_hidden_transcriptomes_are_nested_and_never_of_test_patients(brief):
    results, config = brief
    cohort = Cohort.read(results, "colour-texture", ExpressionTable.read(results, config))

    def with_rna(share: float, seed: int = 0) -> set[str]:
        seen = cohort.without_rna(FOLD, share, seed)
        return {patient for patient in seen.patients["patient_id"] if seen.value(patient, "has_rna")}

    training = set(paired(results))
    every = with_rna(0.0)
    tested = every - training
    assert tested
    shares = (0.0, 0.3, 0.6, 0.9, 1.0)
    left = [with_rna(share) for share in shares]
    assert all(less < more for more, less in pairwise(left))
    assert all(tested <= own for own in left)
    assert [len(own & training) for own in left] == [len(training) - round(s * len(training)) for s in shares]
    assert with_rna(0.5, seed=1) != with_rna(0.5, seed=0)


@pytest.fixture(scope="module")
def larger(planted):
    results, config, _ = planted(90, epochs=30)
    return results, config


@pytest.mark.parametrize("pairs", ["true", "permuted"])
def test_slides_find_their_transcriptome_where_pairs_are_true(larger, clone, train_stages, pairs):
    results, config = clone(*larger)
    if pairs == "permuted":
        with h5py.File(results / OUTPUT, "a") as file:
            order = np.random.default_rng(0).permutation(len(file["X"]))
            for name in ("X", "layers/counts"):
                file[name][...] = file[name][()][order]
    config["methods"]["mirror"]["probe"]["shots"] = []
    train_stages(results, config, "mirror", "pretrain", "fused")
    cohort = Cohort.read(results, "colour-texture", ExpressionTable.read(results, config))
    checkpoint = Checkpoint.read(train.run_folder(results, "os", "mirror", "fused", FOLD, 0))
    tested = [p for p in cohort.patients["patient_id"] if cohort.value(p, "has_rna") and cohort.value(p, "fold") == 0]
    outputs = list(predict.each_output(checkpoint, cohort, tested, device="cpu"))
    slide, rna = (
        np.concatenate([output["aligned"][name]["20x"].double().numpy() for output in outputs])
        for name in ("slide", "rna")
    )
    nearer, _ = retrieval(slide, rna)
    place = nearer.mean() / (len(tested) - 1)  # of the own one among all: 0 is the first, 1/2 chance
    recall = (nearer < 5).mean() / (5 / len(tested))  # 1 by chance
    assert (place < 0.3 and recall > 2) if pairs == "true" else (0.35 < place < 0.65 and recall < 1.5)
