"""`histill predict`: from a slide's file to prediction.json, maps, tiles for QuPath and a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from histill import config as configuration
from histill.bundle import manifest, slide_files, slide_run
from histill.bundle.bundle import Bundle
from histill.bundle.export import export
from histill.bundle.maps import slide_maps
from histill.cli import app
from histill.data.bags import BagReader
from histill.demo.slide_file import write_slide
from histill.errors import HistillError, SlideError
from histill.methods.predict import each_output
from histill.provenance import read_json
from tests.bundle.slide_bundle import paint, trained
from tests.security.test_labels import with_label

HOSTILE = 'a<script>alert(1)<$x$ & "b".svs'
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"]


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    return paint(tmp_path_factory.mktemp("painted"))


@pytest.fixture(scope="module")
def bundle(painted, tmp_path_factory):
    """Function that gives the bundle of a task (`os`, `dx`) and method (`wsi-only`, `meanpool`)."""
    results = tmp_path_factory.mktemp("trained") / "results"
    config = trained(painted, results)

    def give(task: str = "dx", method: str = "wsi-only") -> Path:
        out = results.parent / f"{task}-{method}"
        if not out.exists():
            export(config=config, task=task, method=method, stage="train", out=out, log=lambda _: None)
        return out

    return give


@pytest.fixture(scope="module")
def done(bundle, painted, tmp_path_factory):
    """(OUT, outcomes by file name): a good slide by two names, one in other colours, and three that cannot be read."""
    place = tmp_path_factory.mktemp("secret place") / "slides"
    place.mkdir()
    for name in ("good.svs", HOSTILE):
        shutil.copy(painted, place / name)
    with openslide.OpenSlide(painted) as slide:
        picture = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    write_slide(place / "other.svs", np.ascontiguousarray(picture[..., ::-1]), "other", mpp=0.5)
    write_slide(place / "glass.svs", np.full((1500, 1500, 3), 243, np.uint8), "glass", mpp=0.5)
    (place / "text.svs").write_text("no slide\n")
    names = ["good.svs", HOSTILE, "other.svs", "glass.svs", "text.svs", "absent.svs"]
    out = place.parent / "out"
    found = slide_run.run(bundle(), [place / name for name in names], out, keep=True)
    return out, dict(zip(names, found, strict=True))


@pytest.fixture
def good(done) -> Path:
    return done[1]["good.svs"].folder


def page_of(folder: Path) -> str:
    return (folder / "view.html").read_text(encoding="utf-8")


def tiles_of(folder: Path) -> list[dict]:
    return json.loads((folder / "tiles.geojson").read_text())["features"]


def test_predictions_fit_the_schema_and_name_files_that_are_there(done, bundle, painted, tmp_path):
    (survival,) = slide_run.run(bundle("os"), [painted], tmp_path)
    form = Draft202012Validator(configuration.schema("prediction"))
    predicted = [done[1][name] for name in ("good.svs", HOSTILE, "other.svs")]
    for outcome in (*predicted, survival):
        assert set(outcome.prediction["files"]) < set(slide_files.NAMES)
        told = read_json(outcome.folder / "prediction.json")
        assert told == outcome.prediction
        assert not list(form.iter_errors(told))
        written = {path.name for path in outcome.folder.iterdir()}
        assert written == {*told["files"], "prediction.json"}
        assert written >= {"attention-10x.png", "attention-20x.png", "subspace-10x.png", "subspace-20x.png"}
        assert written >= {"view.html", "tiles.geojson", "top-tiles.png"}
    assert len(survival.prediction["prediction"]["survival"]) == len(Bundle.read(bundle("os")).times)
    assert survival.prediction["task"]["time"] == "time"


def test_what_is_told_is_what_the_bundle_says(done, bundle, good):
    read = Bundle.read(bundle())
    bags = BagReader(done[0] / ".work" / "features" / "colour-texture", {"good": ["good"]})
    said = read.predict(bags, device="cpu")
    told = read_json(good / "prediction.json")
    rows = told["prediction"]["classes"]
    assert [row["class"] for row in rows] == ["a", "b"]
    np.testing.assert_allclose([row["probability"] for row in rows], said["calibrated"][0], atol=1e-6)
    np.testing.assert_allclose([row["raw"] for row in rows], said["p"][0], atol=1e-6)
    assert sum(told["prediction"]["votes"].values()) == len(read.members) == told["bundle"]["members"]
    assert told["bundle"]["digest"] == read.about["digest"]
    assert told["tiles"]["20x"]["encoded"] == 4 * told["tiles"]["10x"]["encoded"] > 0
    assert told["slide"]["mpp"] == {"x": 0.5, "y": 0.5, "source": "openslide.mpp-x"}
    assert {"inspect", "tissue", "tiles", "features", "prediction", "pictures", "page"} == told["seconds"].keys()


def test_a_slide_like_no_training_slide_is_told_first_of_all(done):
    usual, other = (done[1][name].prediction for name in ("good.svs", "other.svs"))
    assert not usual["out_of_distribution"]["outside"]
    assert other["out_of_distribution"]["outside"]
    assert other["out_of_distribution"]["score"] > other["out_of_distribution"]["threshold"]
    assert other["warnings"][0]["level"] == "stop"
    assert "distribution" in other["warnings"][0]["head"]
    assert "Out of distribution" in page_of(done[1]["other.svs"].folder)
    assert "Out of distribution" not in page_of(done[1]["good.svs"].folder)


@pytest.mark.parametrize(
    ("name", "step", "reason", "mend"),
    [
        ("glass.svs", "tissue", "tissue", ""),
        ("text.svs", "inspect", "no reader can open it", "complete slide"),
        ("absent.svs", "inspect", "No such file", "correct its path"),
    ],
)
def test_slides_that_cannot_be_predicted_say_why_and_stop_no_others(done, name, step, reason, mend):
    failure = read_json(done[1][name].folder / "failure.json")
    assert (failure["file"], failure["step"]) == (name, step)
    assert reason in failure["reason"]
    assert mend in (failure["mend"] or "")
    assert [path.name for path in done[1][name].folder.iterdir()] == ["failure.json"]


def test_nothing_names_folders_of_this_machine_or_the_workflow(done):
    for path in done[0].glob("*/*"):
        if path.suffix in (".json", ".geojson", ".html"):
            text = path.read_text(encoding="utf-8")
            assert "secret place" not in text, path
            assert "snakemake" not in text, path


def test_tiles_are_valid_geojson_inside_the_slide(good, done):
    told, tiles = read_json(good / "prediction.json"), tiles_of(good)
    size = told["slide"]["width"], told["slide"]["height"]
    assert len(tiles) == sum(count["encoded"] for count in told["tiles"].values())
    assert len({uuid.UUID(one["id"]) for one in tiles}) == len(tiles)
    for one in tiles:
        (ring,) = one["geometry"]["coordinates"]
        assert one["type"] == "Feature"
        assert one["geometry"]["type"] == "Polygon"
        assert ring[0] == ring[-1]
        points = np.array(ring)
        assert (points >= 0).all()
        assert (points <= size).all()
        assert one["properties"]["objectType"] == "tile"
        assert all(isinstance(value, int | float) for value in one["properties"]["measurements"].values())
    for power in (10, 20):
        values = [one["properties"]["measurements"] for one in tiles]
        values = [own for own in values if own["Magnification"] == power]
        for subspace in ("tumour", "microenvironment"):
            assert np.mean([own[f"Attention: {subspace}"] for own in values]) == pytest.approx(1, abs=1e-4)
        shares = [own["Subspace: tumour"] + own["Subspace: microenvironment"] for own in values]
        np.testing.assert_allclose(shares, 1, atol=1e-4)
    named = [one["properties"]["classification"]["name"] for one in tiles if "classification" in one["properties"]]
    assert 0 < named.count("Top 20x tumour") <= 8
    assert tiles == tiles_of(good)


def test_maps_are_the_mean_over_the_members(done, bundle, good):
    read, work = Bundle.read(bundle()), done[0] / ".work"
    bags = BagReader(work / "features" / "colour-texture", {"good": ["good"]})
    maps = slide_maps(read, bags, "good", folder=work / "slides" / "good", device="cpu")
    fine = next(tiles for tiles in maps.levels if tiles.level == "20x")
    wanted = [
        output["attention"]["tumor"]["20x"][0].numpy() * len(fine.rows)
        for member in read.members
        for output in each_output(member, read.cohort(bags), ["good"], device="cpu")
    ]
    assert len(wanted) == 2
    shown = next(one for one in fine.maps if one.key == "attention-tumor")
    np.testing.assert_allclose(shown.values, np.mean(wanted, axis=0), rtol=1e-6)
    best = fine.top(shown)
    assert (np.diff(shown.values[best]) <= 0).all()
    assert (fine.tissue[best] >= 0.25).all()


def test_models_without_attention_have_a_page_that_says_so(bundle, painted, tmp_path):
    (outcome,) = slide_run.run(bundle("dx", "meanpool"), [painted], tmp_path)
    assert not list(outcome.folder.glob("*.png"))
    assert "no attention over tiles" in page_of(outcome.folder)
    assert '<input type="radio"' not in page_of(outcome.folder)
    assert {"Tissue", "Magnification"} == tiles_of(outcome.folder)[0]["properties"]["measurements"].keys()


def test_pages_load_nothing_and_send_nothing(good):
    page = page_of(good)
    assert "default-src 'none'" in page
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # without the library
    assert "http" not in own.replace("http-equiv", "")
    assert not re.findall(r"""(?:src|href)=["'](?!data:image/)""", own)
    assert 'plotlyServerURL: ""' in page
    assert "sendChartToCloud" not in page.split("</script>")[-2]


def test_names_of_files_are_text_and_nothing_else(done):
    outcome = done[1][HOSTILE]
    assert re.fullmatch(r"[A-Za-z0-9._-]+", outcome.folder.name)
    assert outcome.prediction["slide"]["file"] == HOSTILE
    assert "<script>alert" not in page_of(outcome.folder)


def test_label_and_macro_images_are_never_opened(bundle, painted, tmp_path, monkeypatch):
    def refuse(_):
        raise AssertionError("an associated image was asked for")

    with openslide.OpenSlide(painted) as slide:
        assert "thumbnail" in slide.associated_images
    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(refuse))
    (outcome,) = slide_run.run(bundle("dx", "meanpool"), [painted], tmp_path)
    assert outcome.failure is None


def test_what_label_and_macro_images_show_changes_nothing(bundle, painted, tmp_path):
    shown = []
    for colour in ((0, 255, 0), (0, 0, 255)):
        place = tmp_path / str(colour[1])
        place.mkdir()
        slide = with_label(painted, place / "one.svs", colour)
        (outcome,) = slide_run.run(bundle("dx", "meanpool"), [slide], place / "out")
        assert outcome.failure is None
        files = [path for path in outcome.folder.iterdir() if path.suffix in (".png", ".geojson", ".html")]
        # The digest of the whole file is one of its labels too, and no two runs take the same time.
        own = rb"\b[0-9a-f]{20}\b|Seconds a step</th><td>[^<]*"
        shown.append({path.name: re.sub(own, b"", path.read_bytes()) for path in files})
    assert shown[0].keys() == shown[1].keys()
    assert len(shown[0]) == 2  # the page and the tiles; maps only with attention
    assert [name for name in shown[0] if shown[0][name] != shown[1][name]] == []


def test_kept_work_is_gone_on_from_and_old_results_do_not_stay(bundle, painted, tmp_path, capsys):
    slide = tmp_path / "one.svs"
    shutil.copy(painted, slide)
    slide_run.run(bundle("dx", "meanpool"), [slide], tmp_path / "out", keep=True)
    capsys.readouterr()
    slide_run.run(bundle("os", "meanpool"), [slide], tmp_path / "out", keep=True)
    assert "tiles one: up to date" in capsys.readouterr().out
    slide.write_text("no slide any more")
    with pytest.raises(HistillError, match=r"another slide named one\.svs"):
        slide_run.run(bundle(), [slide], tmp_path / "out")
    (tmp_path / "out" / "one" / "prediction.json").unlink()
    (tmp_path / "out" / "one" / "mine.png").write_text("a picture of somebody else")
    (outcome,) = slide_run.run(bundle(), [slide], tmp_path / "out")
    assert {path.name for path in outcome.folder.iterdir()} == {"failure.json", "mine.png"}
    assert not list((tmp_path / "out").glob(".work.*"))


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("recipe", {"pooling": "cls"}, "pooling"),
        ("options", {"features": {"source": "bags", "encoder": "uni"}}, "imported features"),
    ],
)
def test_bundles_of_other_features_are_refused(bundle, painted, tmp_path, key, change, message):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle(), folder)
    about = read_json(folder / "bundle.json")
    for name in ("format", "files", "digest"):
        del about[name]
    about[key] |= change
    manifest.write(folder, about)
    with pytest.raises(HistillError, match=message) as refused:
        slide_run.run(folder, [painted], tmp_path / "out")
    assert "histill predict BUNDLE SLIDE" not in refused.value.mend  # which is what was asked for


def test_what_is_no_bundle_and_no_folder_is_refused(bundle, painted, tmp_path):
    with pytest.raises(HistillError, match="no bundle"):
        slide_run.run(tmp_path, [painted], tmp_path / "out")
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(HistillError, match="is a file"):
        slide_run.run(bundle(), [painted], taken)


@pytest.mark.parametrize("name", ["painted.svs", "text.svs"])
def test_a_name_that_is_no_text_is_shown_with_question_marks(bundle, painted, tmp_path, name):
    slide = tmp_path / f"\udcff{name}"
    shutil.copy(painted, slide) if name == "painted.svs" else slide.write_text("no slide")
    (outcome,) = slide_run.run(bundle(), [slide], tmp_path / "out")
    assert (outcome.failure is None) == (name == "painted.svs")
    assert f"?{name}" in slide_run.told(outcome).encode().decode()
    for path in outcome.folder.glob("*.json"):
        assert "\\udcff" not in path.read_text(encoding="utf-8")


def test_warnings_speak_of_the_option_and_of_the_page(bundle, painted, tmp_path):
    (outcome,) = slide_run.run(bundle("dx", "meanpool"), [painted], tmp_path, mpp=0.4)
    texts = " ".join(one["text"] for one in outcome.prediction["warnings"])
    assert "--mpp 0.4 µm per pixel" in texts
    assert "sample sheet" not in texts
    (outcome,) = slide_run.run(bundle("dx", "meanpool"), [painted], tmp_path, mpp=99)
    assert "--mpp says 99 µm per pixel" in outcome.failure["reason"]


@pytest.mark.parametrize("taken", ["one", "one/view.html"])
def test_what_is_in_the_way_is_named_before_anything_is_read(bundle, tmp_path, taken):
    place = tmp_path / "out" / taken
    if taken == "one":
        place.parent.mkdir()
        place.write_text("mine")
    else:
        place.mkdir(parents=True)
    with pytest.raises(HistillError, match=f"{taken} is in the way"):
        slide_run.run(bundle("dx", "meanpool"), [tmp_path / "one.svs"], tmp_path / "out")


def test_a_slide_of_the_same_name_does_not_replace_another(bundle, painted, tmp_path):
    (first, second), out = (tmp_path / "first", tmp_path / "second"), tmp_path / "out"
    for place in (first, second):
        place.mkdir()
        shutil.copy(painted, place / "one.svs")
    with (second / "one.svs").open("ab") as file:
        file.write(b"another")
    slide_run.run(bundle("dx", "meanpool"), [first / "one.svs"], out)
    before = (out / "one" / "prediction.json").read_bytes()
    with pytest.raises(HistillError, match=r"one holds the prediction of another slide named one\.svs"):
        slide_run.run(bundle("dx", "meanpool"), [second / "one.svs"], out)
    assert (out / "one" / "prediction.json").read_bytes() == before
    (again,) = slide_run.run(bundle("dx", "meanpool"), [first / "one.svs"], out)
    assert again.prediction


def test_a_full_disk_is_told(bundle, painted, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "view.html")

    monkeypatch.setattr(slide_files.viewer, "write", full)
    with pytest.raises(HistillError, match=r"view.html cannot be written: No space left on device\n.*make room"):
        slide_run.run(bundle("dx", "meanpool"), [painted], tmp_path)


def test_a_slide_that_fails_late_leaves_no_halves(bundle, painted, tmp_path, monkeypatch):
    def gone(*_):
        raise SlideError("the slide is gone", mend="bring it back")

    monkeypatch.setattr(slide_files.viewer, "write", gone)
    (outcome,) = slide_run.run(bundle(), [painted], tmp_path)
    assert outcome.failure["step"] == "predict"
    assert [path.name for path in outcome.folder.iterdir()] == ["failure.json"]


def test_the_command_ends_with_1_where_a_slide_failed(bundle, painted, tmp_path):
    (tmp_path / "text.svs").write_text("no slide")
    command = [
        "predict",
        str(bundle("dx", "meanpool")),
        str(painted),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    bad = CliRunner().invoke(app, [*command, str(tmp_path / "text.svs")])
    assert "view.html" in bad.stdout
    assert bad.exit_code == 1
    assert "text.svs: FAILED at inspect" in bad.stderr


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_the_page_works_in_a_browser(good, tmp_path):
    def browse(*options: str) -> subprocess.CompletedProcess:
        where = (good / "view.html").resolve().as_uri()
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [BROWSER, *QUIET, profile, "--virtual-time-budget=20000", "--window-size=1300,1200", *options, where]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    dom = browse("--dump-dom")
    assert 'data-ready="yes"' in dom.stdout
    assert not re.findall(r"CONSOLE.*(?:Error|Refused)", dom.stderr)
    assert dom.stdout.count('class="hm"') >= 1
    assert re.search(r'id="bar".*?<span>\d+ (?:µm|mm)</span>', dom.stdout, re.DOTALL)
    path = tmp_path / "page.png"
    browse(f"--screenshot={path}")
    picture = cv2.imread(str(path))
    shown = picture[:, :850].astype(int)
    assert ((shown[..., 2] - shown[..., 1] > 40) & (shown[..., 0] > 120)).sum() > 10_000  # stained tissue


@pytest.mark.shared_data
def test_a_real_slide_is_predicted_and_told_to_be_another_kind(bundle, shared_data, tmp_path):
    (outcome,) = slide_run.run(bundle(), [shared_data / "wsi" / "cmu-1-small-region.svs"], tmp_path)
    assert outcome.prediction["out_of_distribution"]["outside"]
    assert outcome.prediction["warnings"][0]["level"] == "stop"
    assert outcome.prediction["slide"]["mpp"]["x"] == pytest.approx(0.499)
