"""What goes into a bundle, what does not, and what no bundle is made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from histill.bundle import card
from histill.bundle.bundle import Bundle
from histill.bundle.export import export
from histill.cli import app
from histill.data.fold import TEST, Cohort
from histill.errors import HistillError
from histill.evaluation.survival_curves import risk_margin
from histill.features.store import read_group, store_path, write_store
from histill.methods.train import run_folder
from histill.provenance import read_json, write_json
from histill.stages import MODELS, predictors
from tests.bundle.conftest import FOLDS, PATIENTS, RECIPE, RUN, SECRETS

SLIDE_ONLY = [
    (method, stage)
    for method in RUN
    for stage in predictors(method)
    if MODELS[method][stage].reads == ("slide",) and method != "retrieval"
]


def rows_tested(config, task, method, stage, fold):
    """Test patients of a fold's predictions, with a row of outputs each, and all training risks."""
    folder = run_folder(config["results"], task, method, stage, fold, 0)
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    return [row for row in table if row["split"] == TEST], [row.get("risk") for row in table if row["split"] == "train"]


@pytest.mark.parametrize(("method", "stage"), SLIDE_ONLY)
def test_members_say_in_the_bundle_what_they_said_in_the_run(trained, exported, method, stage):
    bundle = Bundle.read(exported("os", method, stage))
    bags = Cohort.read(trained["os"]["results"], "colour-texture").bags
    said = bundle.predict(bags, device="cpu")
    assert len(bundle.members) == FOLDS
    assert said["members"].shape == (FOLDS, PATIENTS)
    for fold in range(FOLDS):
        rows, training = rows_tested(trained["os"], "os", method, stage, fold)
        own = said["members"][fold, [said["names"].index(row["patient_id"]) for row in rows]]
        wanted = risk_margin(np.array([row["risk"] for row in rows]), np.array(training))
        np.testing.assert_allclose(own, wanted, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(said["risk"], said["members"].mean(axis=0))
    assert np.isfinite(said["s"]).all()
    assert (np.diff(said["s"]) <= 1e-9).all()
    assert ((said["calibrated"] > 0) & (said["calibrated"] <= 1)).all()
    assert said["s"].shape == said["calibrated"].shape == (PATIENTS, len(bundle.times))


def test_probabilities_of_classes_are_means_over_members(trained, exported):
    bundle = Bundle.read(exported("dx"))
    said = bundle.predict(Cohort.read(trained["dx"]["results"], "colour-texture").bags, device="cpu")
    assert (bundle.classes, said["members"].shape) == (["a", "b"], (FOLDS, PATIENTS, 2))
    for fold in range(FOLDS):
        rows, _ = rows_tested(trained["dx"], "dx", "disentangled", "student", fold)
        own = said["members"][fold, [said["names"].index(row["patient_id"]) for row in rows]]
        np.testing.assert_allclose(own, [[row["p:a"], row["p:b"]] for row in rows], rtol=1e-6)
    np.testing.assert_allclose(said["p"], said["members"].mean(axis=0))
    np.testing.assert_allclose(said["calibrated"].sum(axis=1), 1)


@pytest.mark.parametrize(("method", "stage"), SLIDE_ONLY)
def test_nothing_of_a_patient_or_a_machine_is_in_it(trained, exported, method, stage):
    folder = exported("os", method, stage)
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes().lower()
            found = [word for word in (*SECRETS, str(folder.parent).lower()) if word.encode() in content]
            assert not found, f"{path.relative_to(folder)} holds {found}"


def test_nothing_learned_from_genes_is_kept_but_what_the_model_reads(exported):
    """MSRL's student is trained with the genes' transform; a slide needs none of it."""
    bundle = Bundle.read(exported("os", "msrl", "student"))
    assert all(member.expression is None for member in bundle.members)
    assert "buffer" in (bundle.folder / "README.md").read_text()
    assert "buffer" not in (exported("os") / "README.md").read_text()


def test_it_says_how_features_are_made(trained, exported):
    bundle = Bundle.read(exported("os"))
    assert bundle.levels == {"10x": 16, "20x": 16}
    assert bundle.recipe["hub"] == RECIPE["hub"]
    assert list(bundle.recipe["weights"]["sha256"].values()) == ["ab" * 32]
    for section in ("slides", "tiles"):
        assert bundle.options[section] == trained["os"][section]
    own = bundle.options["features"]
    assert (own["weights"], own["also"], bundle.options["tissue"]["weights"]) == (None, {}, None)
    bundle.check_recipe(RECIPE)


def test_the_card_has_metrics_and_what_the_hub_reads(trained, exported):
    text = (exported("os") / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "histill",
        "license": "other",
        "base_model": RECIPE["hub"],
        "tags": ["histill", "computational-pathology", "whole-slide-images", "survival", "disentangled"],
    }
    evaluation = read_json(f"{trained['os']['results']}/evaluation/os.json")
    own = evaluation["own"]["disentangled student"]["models"]["disentangled student"]["c_index"]
    assert f"| C-index | {own['value']:.2f} ({own['low']:.2f} to {own['high']:.2f}) |" in body
    assert f"| patients with slides and a known outcome | {PATIENTS} |" in body
    assert f"| slides | {2 * PATIENTS} |" in body
    assert "learned from slides and transcriptomes" in body
    assert "gated" in body
    assert RECIPE["licence"] in body
    assert "ensemble itself was not tested" in body
    assert "{{" not in text
    assert "{%" not in text
    classes = (exported("dx") / "README.md").read_text()
    assert "| class a | 18 |" in classes
    assert "pipeline_tag: image-classification" in classes
    alone = (exported("os", "abmil", "train") / "README.md").read_text()
    assert "learned from slides and need" in alone


@pytest.mark.parametrize(
    ("task", "method", "stage", "says"),
    [
        ("os", "disentangled", "teacher", "reads slide and rna of a patient.*\n.*export stage student"),
        ("os", "linear-rna", "train", "reads rna"),
        ("os", "msrl", "both", "reads slide and rna.*\n.*slide or student"),
        ("os", "mirror", "pretrain", "learns without labels"),
        ("os", "retrieval", "train", "transcriptomes of its training patients"),
        ("none", "disentangled", "student", "no task 'none'.*\n.*os, dx"),
        ("os", "mcat", "train", "methods.run of the config does not have 'mcat'"),
        ("os", "disentangled", "studnet", "no stage 'studnet'.*\n.*teacher, student"),
    ],
)
def test_what_is_no_model_of_slides_alone_is_refused(trained, tmp_path, task, method, stage, says):
    with pytest.raises(HistillError, match=says):
        export(config=trained["os"], task=task, method=method, stage=stage, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.fixture
def copy(trained, tmp_path):
    """A results folder of its own, to be broken: config, and a function that exports `linear-slide` from it."""
    config = {**trained["os"], "results": str(tmp_path / "results")}
    shutil.copytree(trained["os"]["results"], config["results"])

    def run(**changes):
        known = {"task": "os", "method": "linear-slide", "stage": "train", "out": tmp_path / "b"}
        return export(config={**config, **changes}, **known, log=lambda _: None)

    return config, run


def test_what_is_not_trained_as_one_is_refused(copy):
    config, run = copy
    run()
    first, second = (run_folder(config["results"], "os", "linear-slide", "train", fold, 0) for fold in range(FOLDS))
    receipt = read_json(second / "receipt.json")
    write_json(second / "receipt.json", {**receipt, "recipe": "of another config"})
    with pytest.raises(HistillError, match=r"fold1-seed0.* under another config"):
        run()
    write_json(second / "receipt.json", {**receipt, "inputs": {**receipt["inputs"], "features": "of before"}})
    with pytest.raises(HistillError, match=r"fold1-seed0.* on other features"):
        run()
    write_json(second / "receipt.json", receipt)
    (second / "model.safetensors").rename(second / "kept")
    with pytest.raises(HistillError, match=r"fold1-seed0.*model.safetensors is gone"):
        run()
    (second / "kept").rename(second / "model.safetensors")
    (second / "receipt.json").unlink()
    with pytest.raises(HistillError, match="1 of 2 runs are not, fold 1 seed 0"):
        run()
    (first / "receipt.json").unlink()
    with pytest.raises(HistillError, match=r"is not trained: no fold.*\n.*histill train --task os"):
        run()


def test_another_seed_has_no_models(copy):
    with pytest.raises(HistillError, match="2 of 4 runs are not, fold 0 seed 5"):
        copy[1](seeds=[0, 5])


def test_no_bundle_without_predictions_and_evaluation(copy):
    config, run = copy
    (run_folder(config["results"], "os", "linear-slide", "train", 0, 0) / "predictions.parquet").unlink()
    with pytest.raises(HistillError, match=r"fold0-seed0.*predictions\.parquet does not exist"):
        run()
    path = f"{config['results']}/evaluation/os.json"
    evaluation = read_json(path)
    write_json(path, {**evaluation, "own": {}})
    with pytest.raises(HistillError, match="has no metrics of 'linear-slide'"):
        run()
    Path(path).unlink()
    with pytest.raises(HistillError, match="says how good its models are"):
        run()


def test_features_of_two_recipes_are_refused(copy):
    config, run = copy
    path = Path(config["results"]) / store_path("colour-texture", "SECRET-SLIDE-007-1")
    groups = {level: read_group(path, level) for level in ("10x", "20x")}
    write_store(path, groups, {**RECIPE, "pooling": "mean"})
    with pytest.raises(HistillError, match=r'SECRET-SLIDE-007-1.*different recipes: pooling: "model" and "mean"'):
        run()


def test_only_a_bundle_is_replaced(copy, tmp_path):
    _, run = copy
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(HistillError, match="exists and is no bundle"):
        run()
    assert (tmp_path / "b" / "thesis.txt").exists()
    (tmp_path / "b" / "thesis.txt").unlink()
    first = run()
    before = (first / "bundle.json").read_bytes()
    assert (run() / "bundle.json").read_bytes() == before
    for name in ("bundle.json", "README.md"):  # as snakemake does before the rule runs again
        (first / name).unlink()
    assert (run() / "bundle.json").read_bytes() == before


def test_an_evaluation_of_other_predictions_is_refused(copy):
    config, run = copy
    path = f"{config['results']}/evaluation/os.json"
    evaluation = read_json(path)
    evaluation["own"]["linear-slide"]["n"] -= 1
    write_json(path, evaluation)
    with pytest.raises(HistillError, match="is of other predictions than there are now"):
        run()


@pytest.mark.parametrize("licence", ["mit\nevil: 1", "<b>", "", "`mit`"])
def test_a_licence_is_a_name(trained, tmp_path, licence):
    known = {"task": "os", "method": "linear-slide", "stage": "train", "out": tmp_path / "b"}
    with pytest.raises(HistillError, match="is no name of a licence"):
        export(config=trained["os"], **known, licence=licence)


def test_names_of_classes_are_no_html():
    assert card._cell("a | <script>\n b") == "a \\| &lt;script> b"


def test_the_command(copy, tmp_path):
    config, _ = copy
    write_json(tmp_path / "config.json", config)
    asked = ["export", "--config", str(tmp_path / "config.json"), "--task", "os", "--out", str(tmp_path / "b")]
    said = CliRunner().invoke(app, [*asked, "--licence", "cc-by-nc-4.0"])
    assert said.exit_code == 0, said.output
    assert "disentangled student for task 'os', 2 members" in said.output
    assert "license: cc-by-nc-4.0" in (tmp_path / "b" / "README.md").read_text()
    assert isinstance(CliRunner().invoke(app, [*asked, "--stage", "teacher"]).exception, HistillError)
