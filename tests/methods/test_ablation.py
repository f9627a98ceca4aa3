"""Variants of the disentangled method: what each trains of its own, and that it trains it on the same folds."""

from __future__ import annotations

import pytest

from histill.config import complete
from histill.errors import ConfigError, HistillError
from histill.methods import ablation, predict, train
from histill.methods.checkpoint import Checkpoint
from histill.methods.disentangled import training
from histill.provenance import file_digest, read_json
from histill.stages import MODELS, model_recipe

TASKS = {"os": {"type": "survival", "time": "time", "event": "event"}}
FOLD = (0, 0)


def config_of(method=None, **options):
    """A complete config with options of `methods.disentangled` and of `ablation`."""
    sections = {"methods": {"disentangled": method or {}}, "ablation": options}
    return complete({"results": "r", "cohort": {}, "tasks": TASKS, **sections})


def folders(config, name):
    return [node.folder for node in ablation.nodes(config, name, task="os")]


def test_each_variant_has_models_of_its_own_where_it_changes_them():
    config = config_of()
    own = {variant.name: folders(config, variant.name) for variant in ablation.variants(config)}
    assert own == {
        "no-disentanglement": ["disentangled.no-disentanglement"] * 2,
        "no-coordination": ["disentangled.no-coordination"] * 2,
        "no-consistency": ["disentangled.no-consistency"] * 2,
        "no-aggregation": ["disentangled", "disentangled.no-aggregation"],
        "no-distillation": ["disentangled", "wsi-only"],
    }
    assert folders(config, None) == ["disentangled", "disentangled"]
    assert ablation.check(config) == []


def test_a_variant_changes_its_keys_and_nothing_else():
    config = config_of()
    varied = ablation.configure(config, "no-disentanglement")
    assert varied["methods"]["disentangled"]["model"].pop("fusion") == "joint"
    assert config["methods"]["disentangled"]["model"].pop("fusion") == "disentangled"
    assert varied == config
    teacher = ablation.configure(config_of(), "no-consistency")["methods"]["disentangled"]["teacher"]
    assert {key: value for key, value in teacher.items() if value == 0} == {
        "lambda_gram": 0,
        "lambda_gene": 0,
        "lambda_map": 0,
        "lambda_variance": 0,
    }
    assert ablation.configure(config, None) is config


@pytest.mark.parametrize("preset", ["default", "published"])
def test_every_weight_that_a_variant_sets_to_zero_is_one_of_the_method(preset):
    config = config_of({"preset": preset})
    for variant in ablation.BUILT_IN.values():
        for section, keys in variant.changes.items():
            assert keys.keys() <= config["methods"]["disentangled"][section].keys()
    # Every consistency loss there is, so that one that is added later is switched off too.
    weights = {key for key in config["methods"]["disentangled"]["teacher"] if key.startswith("lambda_")}
    consistency = weights - {"lambda_subspace", "lambda_orthogonal", "lambda_rebuild"}
    assert ablation.BUILT_IN["no-consistency"].changes["teacher"].keys() == consistency
    weights = {key for key in config["methods"]["disentangled"]["student"] if key.startswith("lambda_")}
    assert ablation.BUILT_IN["no-distillation"].changes["student"].keys() == weights


def test_the_recipes_hold_every_key_that_the_networks_are_built_from():
    prefix = "methods.disentangled.model."
    teacher, student = (MODELS["disentangled"][stage].keys for stage in ("teacher", "student"))
    for keys, names in ((teacher, training._TEACHER), (student, training._STUDENT)):
        held = {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
        assert {*names, "fusion"} <= held <= {*names, "fusion", "heads"}


@pytest.mark.parametrize(
    ("key", "value", "teacher", "student"),
    [
        ("heads", 2, True, True),
        ("aggregation", "mean", False, True),
        ("tokens", 3, False, True),
        ("dim", 64, True, True),
    ],
)
def test_a_key_changes_the_recipes_of_the_networks_that_read_it(key, value, teacher, student):
    before, after = config_of(), config_of({"model": {key: value}})
    for stage, changed in (("teacher", teacher), ("student", student)):
        recipes = [model_recipe("disentangled", stage, config, task="os") for config in (before, after)]
        assert (recipes[0] != recipes[1]) == changed


def test_variants_of_the_user():
    config = config_of(variants=[], own={"more-tokens": {"model": {"tokens": 4}, "teacher": {"lambda_gram": "2e-1"}}})
    variant = ablation.find(config, "more-tokens")
    assert variant.meaning == "model.tokens: 4, teacher.lambda_gram: 0.2"
    assert [variant.name for variant in ablation.variants(config)] == ["more-tokens"]
    assert ablation.configure(config, "more-tokens")["methods"]["disentangled"]["model"]["tokens"] == 4
    with pytest.raises(ConfigError, match="did you mean 'tokens'"):
        config_of(own={"a": {"model": {"token": 4}}})


def test_what_takes_nothing_away_is_left_out_and_an_error_where_it_is_asked_for():
    method = {"model": {"fusion": "joint"}, "teacher": {"coordination": "none"}}
    names = [variant.name for variant in ablation.variants(config_of(method))]
    assert names == ["no-consistency", "no-aggregation", "no-distillation"]
    assert "no-aggregation" not in {v.name for v in ablation.variants(config_of({"model": {"aggregation": "mean"}}))}
    (problem,) = ablation.check(config_of(method, variants=["no-coordination"]))
    assert "'no-coordination' changes nothing" in problem


def test_the_published_network_has_no_variant_without_aggregation():
    published = {"preset": "published"}
    names = [variant.name for variant in ablation.variants(config_of(published))]
    assert names == ["no-disentanglement", "no-coordination", "no-consistency", "no-distillation"]
    (problem,) = ablation.check(config_of(published, variants=["no-aggregation"]))
    assert "'ablation.variants'" in problem
    assert "clusters of its own" in problem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"run": ["abmil"]}}, "'disentangled' is not there"),
        ({"ablation": {"tasks": ["pfs"]}}, "no task 'pfs'"),
        ({"ablation": {"own": {"no-coordination": {"model": {"tokens": 2}}}}}, "a built-in variant has this name"),
        ({"ablation": {"own": {"same": {"model": {"tokens": 1}}}}}, "'ablation.own': 'same' changes nothing"),
        ({"ablation": {"variants": []}}, "there is no variant"),
    ],
)
def test_why_an_ablation_cannot_be_made(changes, message):
    problems = ablation.check(complete({"results": "r", "cohort": {}, "tasks": TASKS, **changes}))
    assert any(message in problem for problem in problems)


def test_a_variant_that_is_not_there_is_named():
    with pytest.raises(HistillError, match="no variant 'no-attention'; it has no-disentanglement"):
        ablation.configure(config_of(), "no-attention")


def test_the_recipe_of_the_table_follows_the_variants_and_the_evaluation():
    recipes = [
        ablation.table_recipe(config, task="os")
        for config in (
            config_of(),
            config_of(variants=["no-coordination"]),
            config_of(own={"more-tokens": {"model": {"tokens": 4}}}),
            {**config_of(), "evaluation": {**config_of()["evaluation"], "bootstrap": 500}},
        )
    ]
    assert len(set(recipes)) == 4
    assert ablation.table_recipe(config_of(), task="os") == recipes[0]


@pytest.fixture(scope="module")
def trained(planted):
    """(config, results) after one fold of the full model and of three variants."""
    results, config, _ = planted(patients=45, epochs=2)
    config["methods"]["run"] = ["disentangled"]

    def one(method, stage, variant=None):
        where = {"config": config, "results": results, "only": FOLD, "variant": variant}
        return train.run(task="os", method=method, stage=stage, log=lambda _: None, **where)

    for stage in ("teacher", "student"):
        one("disentangled", stage)
    for variant in ("no-aggregation", "no-disentanglement"):
        for node in ablation.nodes(config, variant, task="os"):
            one(node.method, node.stage, variant)
    one("wsi-only", "train")
    return config, results


def test_a_shared_teacher_is_trained_once_and_taught_from(trained):
    _, results = trained
    teacher = train.run_folder(results, "os", "disentangled", "teacher", *FOLD)
    student = train.run_folder(results, "os", "disentangled.no-aggregation", "student", *FOLD)
    assert read_json(student / "receipt.json")["inputs"]["teacher"] == read_json(teacher / "receipt.json")["outputs"]
    assert not (student.parent / "teacher").exists()
    assert Checkpoint.read(student).arguments["aggregation"] == "mean"
    full = train.run_folder(results, "os", "disentangled", "student", *FOLD)
    assert file_digest(student / "model.safetensors") != file_digest(full / "model.safetensors")


def test_a_variant_of_the_fusion_has_a_teacher_of_its_own(trained):
    _, results = trained
    teacher = train.run_folder(results, "os", "disentangled.no-disentanglement", "teacher", *FOLD)
    student = train.run_folder(results, "os", "disentangled.no-disentanglement", "student", *FOLD)
    assert list(Checkpoint.read(teacher).arguments["genes"]) == ["joint"]
    assert Checkpoint.read(student).arguments["subspaces"] == ["joint"]
    assert read_json(student / "receipt.json")["inputs"]["teacher"] == read_json(teacher / "receipt.json")["outputs"]


def test_a_variant_that_is_done_is_not_trained_again(trained):
    config, results = trained
    said: list[str] = []
    train.run(
        task="os",
        method="disentangled",
        stage="student",
        config=config,
        results=results,
        only=FOLD,
        variant="no-aggregation",
        log=said.append,
    )
    assert said == ["os disentangled.no-aggregation student fold 0 seed 0: up to date"]


@pytest.mark.parametrize("variant", ["no-aggregation", "no-disentanglement", "no-distillation"])
def test_variants_predict_the_patients_of_the_full_model(trained, monkeypatch, variant):
    import pyarrow.parquet as pq

    config, results = trained
    monkeypatch.setattr(predict, "runs", lambda *_: [FOLD])
    predict.run(task="os", config=config, results=results, log=lambda _: None)
    receipt = predict.run(task="os", config=config, results=results, variant=variant, log=lambda _: None)
    assert receipt == read_json(results / "receipts" / f"predict-os.{variant}.json")
    full = pq.read_table(train.run_folder(results, "os", "disentangled", "student", *FOLD) / "predictions.parquet")
    _, student = ablation.nodes(config, variant, task="os")
    own = pq.read_table(train.run_folder(results, "os", student.folder, student.stage, *FOLD) / "predictions.parquet")
    assert own.select(["patient_id", "split"]) == full.select(["patient_id", "split"])
    assert own["risk"] != full["risk"]
