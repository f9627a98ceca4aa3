"""Normalisation and batch correction in training and prediction: fitted on training patients, kept, then applied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from histill.cohort.tasks import Task
from histill.data.expression_table import ExpressionTable
from histill.data.fold import Cohort
from histill.errors import HistillError
from histill.methods import predict, train
from histill.methods.checkpoint import Checkpoint
from histill.provenance import file_digest, read_json
from histill.subspaces import SUBSPACES

FOLD = (0, 0)
MODELS = (("disentangled", "teacher"), ("linear-rna", "train"), ("linear-both", "train"))
VARIANTS = {
    "none": {"min_variance": 0.1},
    "tmm": {"normalisation": "tmm"},
    "batch": {"batch": {"column": "site", "unseen": "pass"}},
    "upper quartile, batch": {"normalisation": "upper_quartile", "batch": {"column": "site", "unseen": "pass"}},
}
SHORT = {"epochs": 2, "patience": 2}
PATIENTS = 60


def trained_on(planted, transform, corrupt=(), models=MODELS):
    results, config, _ = planted(PATIENTS, corrupt, transform, **SHORT)
    receipts = {}
    for method, stage in models:
        (receipts[method],) = train.run(
            task="os", method=method, stage=stage, config=config, results=results, only=FOLD, log=lambda _: None
        )
    return results, config, receipts


@pytest.fixture(scope="module", params=VARIANTS)
def trained(planted, request):
    """Transform of the config; results, config and receipts by method of models trained with it."""
    transform = VARIANTS[request.param]
    return transform, *trained_on(planted, transform)


def cohort_of(results, config):
    return Cohort.read(results, "colour-texture", ExpressionTable.read(results, config))


def predicted(checkpoint, cohort, config):
    return predict.predict(checkpoint, cohort, Task.from_config("os", config["tasks"]["os"]), FOLD[0], device="cpu")


def checkpoint_of(results, method, stage):
    return Checkpoint.read(train.run_folder(results, "os", method, stage, *FOLD))


def test_test_patients_change_no_byte_of_a_checkpoint(trained, planted):
    """Nonsense in the genes, slides and sites of every test patient, through the training that users run."""
    transform, results, _, receipts = trained
    assignment = read_json(results / "cohort" / "folds.json")["assignment"]
    corrupt = tuple(patient for patient, folds in assignment.items() if folds == [FOLD[0]])
    other, _, found = trained_on(planted, transform, corrupt)
    assert read_json(other / "cohort" / "folds.json")["assignment"] == assignment
    for method, stage in MODELS:
        for name in ("model.safetensors", "transforms.safetensors"):
            first, second = (train.run_folder(r, "os", method, stage, *FOLD) / name for r in (results, other))
            assert file_digest(first) == file_digest(second), f"{method} {stage} {name}"
        assert found[method]["notes"] == receipts[method]["notes"]


@pytest.mark.parametrize("trained", ["tmm", "batch"], indirect=True)
def test_training_patients_change_what_is_fitted(planted, trained):
    """The check above can fail."""
    transform, results, _, _ = trained
    assignment = read_json(results / "cohort" / "folds.json")["assignment"]
    training = [patient for patient, folds in assignment.items() if folds != [FOLD[0]]]
    other, _, _ = trained_on(planted, transform, tuple(training[:12]), MODELS[1:2])
    first, second = (train.run_folder(r, "os", *MODELS[1], *FOLD) / "transforms.safetensors" for r in (results, other))
    assert file_digest(first) != file_digest(second)


@pytest.mark.parametrize(("method", "stage"), MODELS)
def test_the_config_is_what_is_fitted_and_kept(trained, method, stage, tmp_path):
    transform, results, config, receipts = trained
    checkpoint = checkpoint_of(results, method, stage)
    fitted = checkpoint.expression
    assert fitted.normalisation == transform.get("normalisation")
    assert fitted.min_variance == transform.get("min_variance", 0.0)
    assert fitted.batch == ({"unseen": "pass", "min_samples": 3} if "batch" in transform else None)
    assert checkpoint.write(tmp_path) == receipts[method]["outputs"]
    cohort = cohort_of(results, config)
    again = predicted(Checkpoint.read(tmp_path), cohort, config)
    assert again == predicted(checkpoint, cohort, config)
    assert np.isfinite(again["risk"]).all()
    assert set(again["imputed_genes"]) == {0}


@pytest.mark.parametrize(("method", "stage"), MODELS)
def test_what_a_model_reads_has_the_training_patients_mean_and_spread(trained, method, stage):
    """Whatever was corrected, its inputs are standardised by the training patients alone."""
    _, results, config, _ = trained
    fitted, cohort = (checkpoint_of(results, method, stage).expression, cohort_of(results, config))
    task = Task.from_config("os", config["tasks"]["os"])
    wanted = {"slide": method != "linear-rna", "rna": True}
    training = cohort.select(task, FOLD[0], "train", **wanted)
    if method.startswith("linear"):
        training = sorted(training + cohort.select(task, FOLD[0], "validation", **wanted))
    for values in cohort.expression.transformed(training, fitted).values():
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-3)


@pytest.mark.parametrize("trained", ["tmm", "upper quartile, batch"], indirect=True)
def test_a_normalised_patient_does_not_know_its_sequencing_depth(trained):
    """Ten times the reads of one patient give the same prediction where counts are normalised."""
    _, results, config, _ = trained
    cohort, checkpoint = (cohort_of(results, config), checkpoint_of(results, "linear-rna", "train"))
    table = cohort.expression
    deeper = table.values.copy()
    deeper[7] *= 10
    found = predicted(checkpoint, replace(cohort, expression=replace(table, values=deeper)), config)
    whole = np.array(predicted(checkpoint, cohort, config)["risk"])
    # TMM weighs genes by their counts, so that depth moves a factor by a little.
    np.testing.assert_allclose(found["risk"], whole, atol=0.05 * whole.std())


@pytest.mark.parametrize(("method", "stage"), MODELS)
def test_a_cohort_without_some_genes_is_predicted_and_flagged(trained, method, stage):
    _, results, config, _ = trained
    cohort, checkpoint = (cohort_of(results, config), checkpoint_of(results, method, stage))
    table = cohort.expression
    used = sorted({gene for own in checkpoint.expression.genes_.values() for gene in own})
    gone = used[::10]
    kept = [index for index, gene in enumerate(table.genes) if gene not in gone]
    fewer = replace(table, values=table.values[:, kept], genes=[table.genes[index] for index in kept])
    found = predicted(checkpoint, replace(cohort, expression=fewer), config)
    assert set(found["imputed_genes"]) == {len(gone)}
    assert np.isfinite(found["risk"]).all()
    scaled, whole = (each.transformed(table.patients, checkpoint.expression) for each in (fewer, table))
    for subspace, genes in checkpoint.expression.genes_.items():
        lacking = np.isin(genes, gone)
        assert lacking.any()
        assert not scaled[subspace][:, lacking].any()
        if not table.counts:  # without some genes a library is another
            np.testing.assert_array_equal(scaled[subspace][:, ~lacking], whole[subspace][:, ~lacking])


@pytest.mark.parametrize("trained", ["none", "batch"], indirect=True)
def test_one_patient_without_a_value_is_imputed_alone(trained):
    _, results, config, _ = trained
    cohort, checkpoint = cohort_of(results, config), checkpoint_of(results, *MODELS[0])
    table = cohort.expression
    values = table.values.copy()
    values[5, table.genes.index(checkpoint.expression.genes_[SUBSPACES[0]][0])] = np.nan
    found = predicted(checkpoint, replace(cohort, expression=replace(table, values=values)), config)
    whole = predicted(checkpoint, cohort, config)
    row = whole["patient_id"].index(table.patients[5])
    assert np.flatnonzero(found["imputed_genes"]).tolist() == [row]
    changed = np.flatnonzero(np.array(found["risk"]) != np.array(whole["risk"]))
    assert changed.tolist() == [row]


def test_a_table_of_other_genes_altogether_is_refused(trained):
    _, results, config, _ = trained
    cohort, checkpoint = cohort_of(results, config), checkpoint_of(results, *MODELS[0])
    other = replace(cohort.expression, genes=[f"{gene}-mouse" for gene in cohort.expression.genes])
    with pytest.raises(HistillError, match=r"none of the .* tumor genes"):
        predicted(checkpoint, replace(cohort, expression=other), config)


def test_a_model_of_other_settings_is_refused(trained):
    transform, results, config, _ = trained
    cohort, checkpoint = cohort_of(results, config), checkpoint_of(results, *MODELS[1])
    other = replace(cohort.expression, counts=not cohort.expression.counts)
    with pytest.raises(HistillError, match=f"normalisation '{transform.get('normalisation', 'none')}'"):
        predicted(checkpoint, replace(cohort, expression=other), config)


def test_what_fitting_did_is_in_the_receipt(planted):
    _, _, receipts = trained_on(planted, {"top_variance": 0.5}, models=MODELS[:2])
    assert any("tumor genes are left out" in note for note in receipts["disentangled"]["notes"])
    assert any("transcriptome genes are left out" in note for note in receipts["linear-rna"]["notes"])
