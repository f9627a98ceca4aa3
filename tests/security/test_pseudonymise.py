"""A cohort under pseudonyms: no id is left in the copies, and what belonged together still does."""

from __future__ import annotations

import gzip
import re
import stat
from collections import deque
from pathlib import Path

import anndata
import numpy as np
import pandas
import pytest
import yaml
from typer.testing import CliRunner

from histill import plan
from histill.cli import app
from histill.cohort import fold_file
from histill.errors import ConfigError, HistillError
from histill.features.imports import read_vectors
from histill.privacy.key import Pseudonyms, read_key
from histill.privacy.pseudonymise import pseudonymise
from histill.transcriptome import matrix

PATIENTS = [f"TCGA-AB-{number:04d}" for number in range(12)]
GENES = ["TP53", "EGFR", "MYC", "KRAS", "PTEN", "SEX", "GC"]
NAMES = re.compile(r"TCGA|Miller|Doe|1950|secret-stem", re.IGNORECASE)


@pytest.fixture
def key(tmp_path) -> Path:
    path = tmp_path / "vault" / "key"
    path.parent.mkdir()
    path.write_text("".join(f"{number:x}" for number in range(7, 60)) + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Sheets of twelve patients with names wherever a name can stand; gives the changes of a config to write it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    slides = ["slide_id,patient_id,path,site,note"]
    for index, patient in enumerate(PATIENTS):
        path = tmp_path / "raw" / f"{patient}-secret-stem.svs"
        path.write_bytes(bytes([index]) * 100)
        slides.append(f"{patient}-DX1,{patient},{path},Site {index % 3},Dr Miller")
    Path("slides.csv").write_text("\n".join(slides) + "\n")
    clinical = ["patient_id,name,birth,diagnosis,Sex,months,dead,cohort"]
    clinical += [
        f"{patient},Doe {index},1950-01-0{index % 9 + 1},{'A' if index % 2 else 'B'},f,{index + 1},{index % 2},X"
        for index, patient in enumerate(PATIENTS)
    ]
    Path("clinical.csv").write_text("\n".join(clinical) + "\n")
    rng = np.random.default_rng(0)
    samples = [f"{patient}-01A-11R-A115-07" for patient in PATIENTS] + [f"{PATIENTS[0]}-01A-12R-A115-07"]
    samples.append(f"{PATIENTS[1]}-11A-11R-A115-07")  # normal tissue
    counts = pandas.DataFrame(rng.integers(0, 5000, (len(GENES), len(samples))), GENES, samples)
    with gzip.open("expression.tsv.gz", "wt") as file:
        counts.to_csv(file, sep="\t", index_label="gene")
    Path("folds.csv").write_text("patient_id,fold\n" + "".join(f"{p},{i // 2 % 3}\n" for i, p in enumerate(PATIENTS)))

    def write(**changes) -> Path:
        config = {
            "results": "results",
            "cohort": {"slides": "slides.csv", "clinical": "clinical.csv", "expression": "expression.tsv.gz"},
            "tasks": {
                "diagnosis": {"type": "classification", "label": "diagnosis"},
                "survival": {"type": "survival", "time": "months", "event": "dead"},
            },
            "folds": {"file": "folds.csv"},
            "transcriptome": {"matrix": {"patient": "tcga"}},
            **changes,
        }
        Path("config.yaml").write_text(yaml.safe_dump(config))
        return Path("config.yaml")

    return write


def contents(folder: Path):
    """(file below the folder, its bytes); tables are text as well, whatever their format."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        yield path, path.read_bytes()


def test_no_id_name_or_date_is_left(cohort, key, tmp_path):
    done = pseudonymise(cohort(), key, "out")
    assert (done.patients, done.slides) == (12, 12)
    written = dict(contents(Path("out")))
    assert {path.name for path in written} == {
        "config.yaml",
        "slides.csv",
        "clinical.csv",
        "expression.h5ad",
        "folds.csv",
    }
    for path, content in written.items():
        assert not NAMES.search(content.decode("latin-1")), path
    table = anndata.read_h5ad("out/expression.h5ad")
    assert not NAMES.search(" ".join([*table.obs_names, *table.var_names, *table.uns]))
    assert all(not NAMES.search(path.name) for path in Path("out").rglob("*"))
    assert any("name, birth" in note and "cohort" in note for note in done.notes)


def test_what_belonged_together_still_does(cohort, key):
    path = cohort()
    before = plan.load(path)
    pseudonymise(path, key, "out")
    after = plan.load("out/config.yaml")
    codes = Pseudonyms(read_key(key))
    for slide in before.sheets.slides.values():
        twin = after.sheets.slides[codes.slide(slide.slide_id)]
        assert twin.patient_id == codes.patient(slide.patient_id)
        assert Path(twin.path).read_bytes() == Path(slide.path).read_bytes()
        assert (twin.mpp, twin.site, twin.stain) == (slide.mpp, slide.site, slide.stain)
    for name, task in after.sheets.tasks.items():
        for patient, row in before.sheets.clinical.rows.items():
            label = before.sheets.tasks[name].label(row)
            assert task.label(after.sheets.clinical.rows[codes.patient(patient)]) == label
    folds = [fold_file.read(one.config["folds"]["file"], []) for one in (before, after)]
    assert folds[1] == {codes.patient(patient): fold for patient, fold in folds[0].items()}
    order = list(after.sheets.slides)
    assert order == sorted(order)  # not the order of the sheet, which could be that of names
    assert list(after.sheets.clinical.columns) == ["patient_id", "diagnosis", "Sex", "months", "dead"]


def test_expression_is_that_of_the_same_patients(cohort, key):
    path = cohort()
    pseudonymise(path, key, "out")
    before, after = (
        matrix.read(one.sheets.expression, one.config["transcriptome"]["matrix"])
        for one in (plan.load(path), plan.load("out/config.yaml"))
    )
    code = Pseudonyms(read_key(key)).patient
    assert len(before.patients) == 12
    assert before.replicates.keys() == {PATIENTS[0]}
    assert (after.genes, after.unit) == (before.genes, before.unit)
    order = [after.patients.index(code(patient)) for patient in before.patients]
    np.testing.assert_array_equal(after.values[order], before.values)
    np.testing.assert_array_equal(after.library[order], before.library)


@pytest.mark.parametrize("form", ["integers.parquet", "table.h5ad", "log2.csv"])
def test_other_tables_of_expression(form, cohort, key):
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 5000, (12, len(GENES))).astype(np.float32)
    if form == "table.h5ad":
        obs = pandas.DataFrame({"patient_id": PATIENTS, "name": "Miller"}, index=[f"Doe {i}" for i in range(12)])
        anndata.AnnData(counts, obs=obs, var=pandas.DataFrame(index=GENES)).write_h5ad(form)
    else:
        values = np.log2(counts + 1) if form == "log2.csv" else counts
        names = [100 + index for index in range(12)] if form == "integers.parquet" else [f"S{i}" for i in range(12)]
        frame = pandas.DataFrame(values, columns=GENES)
        frame.insert(0, "patient_id", PATIENTS)
        frame.insert(0, "sample_id", names)
        (frame.to_parquet if form.endswith("parquet") else frame.to_csv)(form, index=False)
    unit = "log2_counts" if form == "log2.csv" else "counts"
    sheets = {"slides": "slides.csv", "clinical": "clinical.csv", "expression": form}
    path = cohort(cohort=sheets, transcriptome={"matrix": {"unit": unit, "genes": "columns"}})
    pseudonymise(path, key, "out")
    before, after = (
        matrix.read(one.sheets.expression, one.config["transcriptome"]["matrix"])
        for one in (plan.load(path), plan.load("out/config.yaml"))
    )
    code = Pseudonyms(read_key(key)).patient
    order = [after.patients.index(code(patient)) for patient in before.patients]
    np.testing.assert_array_equal(after.values[order], before.values)
    assert not NAMES.search(Path("out/expression.h5ad").read_bytes().decode("latin-1"))


def test_tables_of_slide_vectors_and_whole_number_ids(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    frame = pandas.DataFrame(rng.normal(size=(8, 3)).astype(np.float32), columns=["a", "b", "c"])
    frame.iloc[2, 1] = np.nan
    frame.insert(0, "patient_id", [1001.0 + index for index in range(8)])  # as pandas writes them beside an empty cell
    frame.insert(0, "slide_id", [f"Miller-{index}" for index in range(8)])
    frame.to_csv("vectors.csv", index=False)
    Path("clinical.csv").write_text("patient_id,d\n" + "".join(f"{1001 + i},{'xy'[i % 2]}\n" for i in range(8)))
    config = {
        "results": "r",
        "cohort": {"clinical": "clinical.csv"},
        "features": {"source": "table", "encoder": "mine", "table": "vectors.csv"},
        "tasks": {"d": {"type": "classification", "label": "d"}},
        "folds": {"n": 2},
        "methods": {"run": ["linear-slide"]},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    pseudonymise("config.yaml", key, "out")
    (before, names), (after, again) = read_vectors("vectors.csv"), read_vectors("out/features.parquet")
    codes = Pseudonyms(read_key(key))
    twins = {vector.slide_id: vector for vector in after}
    assert again == names
    assert len(after) == 8
    for vector in before:
        twin = twins[codes.slide(vector.slide_id)]
        assert twin.patient_id == codes.patient(vector.patient_id)
        np.testing.assert_array_equal(twin.values, vector.values)
    assert {vector.patient_id for vector in after} == plan.load("out/config.yaml").sheets.clinical.rows.keys()


def test_split_lists_that_name_samples_become_folds_of_patients(cohort, key):
    Path("lists").mkdir()
    for fold in range(2):
        held = [f"{p}-DX1" for i, p in enumerate(PATIENTS) if i // 2 % 2 == fold]
        rest = [f"{p}-DX1" for i, p in enumerate(PATIENTS) if i // 2 % 2 != fold]
        rows = "".join(f"{a},{b}\n" for a, b in zip(rest, held, strict=True))
        Path(f"lists/splits_{fold}.csv").write_text("train,val\n" + rows)
    pseudonymise(cohort(folds={"file": "lists"}), key, "out")
    code = Pseudonyms(read_key(key)).patient
    assert fold_file.read("out/folds.csv", []) == {code(p): i // 2 % 2 for i, p in enumerate(PATIENTS)}


def test_one_id_has_one_pseudonym_and_another_key_another(cohort, key, tmp_path):
    first, other = Pseudonyms(read_key(key)), Pseudonyms(b"another key of thirty-two bytes ....")
    assert first.patient("x") == Pseudonyms(read_key(key)).patient("x") != other.patient("x")
    assert first.patient("x")[2:] != first.slide("x")[2:]
    assert re.fullmatch("p-[a-z2-7]{16}", first.patient("x"))
    assert re.fullmatch("s-[a-z2-7]{16}", first.slide("x"))
    pseudonymise(cohort(), key, "out")
    pseudonymise(cohort(), key, "again")
    assert Path("out/slides.csv").read_text().replace("out/", "again/") == Path("again/slides.csv").read_text()


def test_collisions_are_refused(monkeypatch):
    monkeypatch.setattr("histill.privacy.key.CHARACTERS", 1)
    codes = Pseudonyms(b"k" * 40)
    with pytest.raises(HistillError, match="get the same pseudonym"):
        deque(map(codes.patient, map(str, range(33))))


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"short but secret 0123456789", 0o600, "fewer than 32"),
        (b"ab" * 40, 0o600, "not random"),
        (bytes(range(64)), 0o640, "by others"),
        (bytes(range(64)), 0o602, "by others"),
        (None, 0, "No such file"),
    ],
)
def test_keys_that_are_no_secret(content, mode, said, cohort, tmp_path):
    path = tmp_path / "weak"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(HistillError, match=said) as caught:
        pseudonymise(cohort(), path, "out")
    assert caught.value.mend
    assert not Path("out").exists()


def test_places_that_would_give_the_secret_away(cohort, key):
    with pytest.raises(HistillError, match="lies in"):
        pseudonymise(cohort(), key, key.parent)
    Path("out").mkdir()
    Path("out/file").touch()
    with pytest.raises(HistillError, match="out exists"):
        pseudonymise(cohort(), key, "out")


def test_identities_are_kept_beside_the_key_only_if_asked(cohort, key):
    pseudonymise(cohort(), key, "out")
    identities = key.parent / "identities.csv"
    assert not identities.exists()
    arguments = ["pseudonymise", "--config", "config.yaml", "--key", str(key), "--out", "told", "--keep-identities"]
    told = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert told.exit_code == 0
    assert "12 patients and 12 slides" in told.output
    assert stat.S_IMODE(identities.stat().st_mode) == 0o600
    table = pandas.read_csv(identities)
    codes = Pseudonyms(read_key(key))
    assert {*table["kind"]} == {"patient", "slide"}
    assert len(table) == 24
    assert dict(zip(table["id"], table["pseudonym"], strict=True))[PATIENTS[3]] == codes.patient(PATIENTS[3])
    with pytest.raises(HistillError, match=r"identities\.csv exists"):
        pseudonymise(cohort(), key, "more", keep_identities=True)


def test_two_spellings_of_one_id_are_refused(cohort, key):
    for name, cell in (("slides.csv", ",{},"), ("clinical.csv", "\n{},")):
        text = Path(name).read_text()
        Path(name).write_text(text.replace(cell.format("TCGA-AB-0011"), cell.format("TCGA.AB.0010")))
    spelt = cohort(folds={"n": 2})
    with pytest.raises(HistillError, match=r"two ways: 'TCGA-AB-0010' and 'TCGA\.AB\.0010'"):
        pseudonymise(spelt, key, "out")
    assert not Path("out").exists()
    done = pseudonymise(cohort(folds={"n": 2, "audit": "warn"}), key, "out")
    assert any("two ways" in note for note in done.notes)


def test_a_config_that_picks_patients_by_id_is_refused(cohort, key):
    external = {"n": 2, "external": {"column": "patient_id", "values": [PATIENTS[0]]}}
    with pytest.raises(HistillError, match="picks patients by the column patient_id"):
        pseudonymise(cohort(folds=external), key, "out")


def test_a_used_column_that_holds_the_ids_is_refused(cohort, key):
    text = Path("clinical.csv").read_text().splitlines()
    rows = [f"{line},{line.split(',')[0].replace('-', '.')}" for line in text[1:]]
    Path("clinical.csv").write_text("\n".join([f"{text[0]},case_id", *rows]) + "\n")
    pseudonymise(cohort(), key, "out")  # a column that is left out may hold what it likes
    picked = {
        "type": "classification",
        "label": "diagnosis",
        "where": {"case_id": [p.replace("-", ".") for p in PATIENTS]},
    }
    with pytest.raises(HistillError, match="column 'case_id', which the config reads, holds the patients' ids"):
        pseudonymise(cohort(tasks={"diagnosis": picked}), key, "again")
    assert not Path("again").exists()


def test_numbers_that_are_an_id_by_chance_are_no_ids(cohort, key):
    for name in ("slides.csv", "clinical.csv"):
        text = Path(name).read_text()
        for number, patient in enumerate(PATIENTS):
            text = text.replace(f"\n{patient},", f"\n{number + 3},").replace(f"DX1,{patient},", f"DX1,{number + 3},")
        Path(name).write_text(text)
    clinical = Path("clinical.csv")
    clinical.write_text(re.sub("\n3,(.*),1,0,X", r"\n3,\1,3,0,X", clinical.read_text()))  # three months
    sheets = {"slides": "slides.csv", "clinical": "clinical.csv"}
    config = cohort(cohort=sheets, folds={"n": 2}, methods={"run": ["abmil"]})
    assert plan.load(config).sheets.clinical.rows["3"]["months"] == "3"
    assert pseudonymise(config, key, "out").patients == 12


def test_identities_that_cannot_be_kept_leave_no_copies(cohort, key, monkeypatch):
    def full(path, codes):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("histill.privacy.pseudonymise._write_identities", full)
    with pytest.raises(OSError, match="No space left"):
        pseudonymise(cohort(), key, "out", keep_identities=True)
    assert not Path("out").exists()
    (key.parent / "identities.csv").symlink_to("nowhere")
    with pytest.raises(HistillError, match=r"identities\.csv exists"):
        pseudonymise(cohort(), key, "out", keep_identities=True)


def test_slides_of_several_files(cohort, key):
    mirax, index = Path("raw/TCGA-1.mrxs"), Path("raw/TCGA-2.vms")
    mirax.write_bytes(b"m")
    Path("raw/TCGA-1").mkdir()
    Path("raw/TCGA-1/Slidedat.ini").write_text("[A]\nINDEXFILE=i\n")
    Path("raw/TCGA-1/i").write_bytes(b"i")
    index.write_text("[V]\nImageFile=TCGA-2.jpg\nMapFile=TCGA-2.jpg\n")
    Path("raw/TCGA-2.jpg").write_bytes(b"j")
    sheet = Path("slides.csv")
    more = "".join(f"{path.stem},{PATIENTS[0]},{path.resolve()},,\n" for path in (mirax, index))
    sheet.write_text(sheet.read_text() + more)
    done = pseudonymise(cohort(), key, "out")
    codes, slides = Pseudonyms(read_key(key)), plan.load("out/config.yaml").sheets.slides
    twin = Path(slides[codes.slide("TCGA-1")].path)
    assert twin.name == f"{codes.slide('TCGA-1')}.mrxs"
    assert (twin.with_suffix("") / "Slidedat.ini").read_text() == Path("raw/TCGA-1/Slidedat.ini").read_text()
    assert slides[codes.slide("TCGA-2")].path == str(index.resolve())
    assert any("several files keep their path" in note and "TCGA-2" in note for note in done.notes)


def test_a_cohort_with_problems_is_not_copied(cohort, key):
    Path("clinical.csv").write_text("patient_id\nx\n")
    with pytest.raises(ConfigError):
        pseudonymise(cohort(), key, "out")
    assert not Path("out").exists()
