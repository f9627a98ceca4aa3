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
    defaults["transcriptome"]["matrix"]["unit"] = "counts"
    said = {"batch_size", "folds", "tasks"}  # these, and the unit, differ on purpose; the file says so
    assert {key for key in complete if complete[key] != defaults[key]} <= said
    assert set(given) <= set(complete)


def _keys(form):
    for key, sub in form.get("properties", {}).items():
        yield key
        yield from _keys(sub)


def test_a_section_whose_keys_are_all_commented_out_has_its_defaults():
    given = {"results": "r", "demo": None, "tiles": None, "training": {"model": None}}
    assert config.complete(given) == config.complete({"results": "r", "demo": {}})
    assert "tiles.size': has no value" in problems({"results": "r", "demo": {}, "tiles": {"size": None}})[0]


def test_numbers_have_one_spelling():
    model = {"learning_rate": "1e-4", "epochs": 5.0}
    complete = config.complete({"results": "r", "demo": {}, "tiles": {"overlap": 0}, "training": {"model": model}})
    assert complete["training"]["model"]["learning_rate"] == 1e-4  # YAML 1.1 reads 1e-4 as text
    for value, kind in ((complete["training"]["model"]["epochs"], int), (complete["tiles"]["overlap"], float)):
        assert type(value) is kind
    assert "224.5 is not" in problems({"results": "r", "demo": {}, "tiles": {"size": "224.5"}})[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tissue": {"mpp": float("nan")}}, "tissue.mpp': nan is no finite number"),
        ({"transcriptome": {"transform": {"clip": float("inf")}}}, "inf is no finite number"),
        ({"seeds": [99999999999]}, "seeds.0"),
        ({"report": {"title": "\ud800"}}, "half a character"),
        ({"report": {"title": 2024}}, "put it in quotes"),
        ({"tasks": {True: {"type": "classification", "label": "x"}}}, "put it in quotes"),  # YAML reads `on:` so
        ({"tasks": {"x": None}}, "'type' is a required property"),
        ({"tasks": ["x"]}, "is not of type 'object'"),
        ({"tasks": {"x\n": {"type": "classification", "label": "x"}}}, "'x\\n' must match"),
        ({"features": {"device": "cpu\n"}}, "features.device': 'cpu\\n' must match"),
        ({"container": "a.sif; touch x"}, "'container': 'a.sif; touch x' must match"),
        ({"container": "--bind"}, "'container': '--bind' must match"),
    ],
)
def test_values_that_no_stage_could_use(changes, message):
    assert message in "\n".join(problems({"results": "r", "demo": {}, **changes}))


@pytest.mark.parametrize(
    "path",
    ["", "/", "//", "~/x", "{x}", "*", "$(touch x)", "`x`", "a;b", "a\nb", "-x", " x", "a'b", "s3://b/x", "a\\b"],
)
def test_results_folders_that_snakemake_or_the_shell_would_misread(path):
    assert "'results'" in problems({"results": path, "demo": {}})[0]


def test_results_folder_is_normalised_and_no_file(tmp_path):
    for path, same in (("r/", "r"), ("a/../b", "b"), ("my results", "my results"), ("../x", "../x"), (".", ".")):
        assert config.complete({"results": path, "demo": {}})["results"] == same
    (tmp_path / "file").write_text("x")
    assert "is a file" in problems({"results": str(tmp_path / "file"), "demo": {}})[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"tiles: {size: 224}\ntiles: {size: 256}\n", "line 2: key 'tiles' is given a second time .first on line 1"),
        (b"tiles:\n  size: 224\n  size: 256\n", "line 3: key 'size'"),
        (b"tiles:\n\tsize: 224\n", "spaces, not tabs"),
        ("results: é".encode("latin-1"), "is not UTF-8"),
        ("results: r".encode("utf-16"), "is not UTF-8"),
        (b"", "holds no mapping"),
        (b"a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_config_files_that_cannot_be_trusted(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(HistillError, match=message):
        config.load(path)


def test_byte_order_mark_windows_lines_and_merge_keys_are_harmless(tmp_path):
    path = tmp_path / "config.yaml"
    text = "demo: &d {seed: 3}\r\nfolds: {<<: *d, n: 3}\r\nresults: r\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    folds = config.load(path)["folds"]
    assert (folds["n"], folds["seed"], folds["file"]) == (3, 3, None)


def test_text_of_the_command_line_becomes_what_the_schema_wants():
    """Snakemake's --config hands nested values over as text."""
    complete = config.complete(
        {
            "results": "r",
            "demo": {"patients": "24"},
            "tiles": {"overlap": "0.25", "size": "256"},
            "features": {"allow_off_recipe": "true", "table": "null"},
            "seeds": ["0", "1"],
        }
    )
    assert complete["tiles"]["overlap"] == 0.25
    assert complete["tiles"]["size"] == 256
    assert complete["demo"]["patients"] == 24
    assert complete["features"]["allow_off_recipe"] is True
    assert complete["features"]["table"] is None
    assert complete["seeds"] == [0, 1]
    for wrong in ("0.25x", "", "1_0", "٣", "0x10"):
        assert "tiles.overlap" in problems({"results": "r", "demo": {}, "tiles": {"overlap": wrong}})[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": {"heads": 3}}, "3 heads do not divide a width of 128"),
        ({"teacher": {"lambda_variance": 1}}, "lambda_variance': the network 'attention' has no such term"),
        ({"model": {"network": "deformable"}}, "lambda_gene': the network 'deformable' has no such term"),
        ({"preset": "published", "model": {"network": "attention"}}, "lambda_variance"),
        ({"preset": "publishd"}, "publishd"),
        ({"preset": ["default"]}, "preset"),
    ],
)
def test_options_of_the_disentangled_method_that_do_not_fit_are_refused(options, message):
    found = problems({"cohort": {}, "methods": {"disentangled": options}})
    assert any(message in problem for problem in found)


def disentangled(**options):
    return config.complete({"cohort": {}, "methods": {"disentangled": options}})["methods"]["disentangled"]


def test_presets_fill_what_is_not_given():
    published = disentangled(preset="published", model={"dim": 64, "heads": None}, student=None)
    assert disentangled()["model"]["network"] == "attention"
    assert published["model"] | {"dim": 128} == disentangled(preset="published")["model"]
    assert (published["model"]["dim"], published["model"]["heads"]) == (64, 8)
    assert published["student"]["distance"] == "mse"
    assert disentangled(**disentangled()) == disentangled()
