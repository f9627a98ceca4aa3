"""Tokens and passwords are in nothing that is written or said; names of files are not where ids are pseudonyms."""

from __future__ import annotations

import subprocess
import sys

import pytest

from histill import plan
from histill.batches import run_batch, write_batch
from histill.cohort.sheets import Slide
from histill.config import complete
from histill.errors import ConfigError, HistillError
from histill.privacy.pseudonymise import pseudonymise
from histill.provenance import QUARANTINED, Receipt
from histill.redact import hide, plain, redact
from histill.report.stage import collect
from tests.security.project import snakemake, write_config, write_sheet, write_slide, written

HUB, OWN = "hf_" + "aB3" * 10, "correct-horse-battery-9"
PASSWORD = "pa55w0rd!x"
ADDRESS = f"https://jane:{PASSWORD}@store.example.org/slide.svs"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", HUB)
    monkeypatch.setenv("HOSPITAL_PASSWORD", OWN)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"401 for {ADDRESS}", "401 for https://…@store.example.org/slide.svs"),
        (f"token {HUB} is invalid", "token … is invalid"),
        ("sent hf_QwErTyUiOpAsDfGhJkL0 to the hub", "sent hf_… to the hub"),
        ("Authorization: Bearer abcdef.ghijkl-123", "Authorization: Bearer …"),
        ("s3.example/x?X-Amz-Signature=0a1b2c&part=3", "s3.example/x?X-Amz-Signature=…&part=3"),
        ("https://x.org/a?sig=abc%2Fdef", "https://x.org/a?sig=…"),
        (f"the value was '{OWN}'", "the value was '…'"),
        ("ghp_0123456789abcdefghij0123", "ghp_…"),
        ("https://example.org/a/b?page=2 and hf_model 10x/20x", "https://example.org/a/b?page=2 and hf_model 10x/20x"),
        ("mail@example.org: risk-score, keys=3", "mail@example.org: risk-score, keys=3"),
    ],
)
def test_hide(text, shown):
    assert hide(text) == shown
    assert redact(text) == shown


def test_control_characters_do_not_reach_a_terminal():
    assert plain("a\x1b[2Jb\u202ec\rd\n\te") == "a\\x1b[2Jb\\u202ec\\rd\n\te"
    assert str(HistillError("x\x1b]0;y", mend="z\x07")) == "x\\x1b]0;y\n  mend: z\\x07"


def test_errors_hide_secrets_wherever_they_go():
    error = HistillError(f"cannot open {ADDRESS}", mend=f"try {HUB}")
    several = ConfigError([f"bad {ADDRESS}", "other"])
    for text in (str(error), error.message, error.mend, repr(error), str(several), *several.problems):
        assert PASSWORD not in text
        assert HUB not in text


@pytest.mark.parametrize("value", [ADDRESS, HUB, f"x{OWN}", "s3://b/w.pt?X-Amz-Security-Token=abc"])
@pytest.mark.parametrize("key", ["features.weights", "cohort.clinical", "report.title", "tissue.weights"])
def test_a_config_that_holds_a_secret_is_refused_without_saying_it(key, value):
    section, name = key.split(".")
    cohort = {"cohort": {"slides": "s.csv"}}
    given = {"results": "r", **cohort, section: {**cohort.get(section, {}), name: value}}
    with pytest.raises(ConfigError, match=f"'{key}': its value holds a password") as caught:
        plan.load(given)
    assert not any(secret in str(caught.value) for secret in (PASSWORD, HUB, OWN, "abc"))


def test_receipts_and_logs_hide_what_libraries_say(tmp_path, capsys):
    def work(slide, receipt):
        raise RuntimeError(f"GET {ADDRESS} with {HUB}: 403")

    known = {"results": tmp_path, "recipe": "r", "inputs": lambda slide: {}}
    (receipt,) = run_batch("inspect", [Slide("s", "p", "s.svs")], work, **known)
    assert receipt.state == QUARANTINED
    assert "store.example.org" in receipt.reason
    said = capsys.readouterr()
    texts = [said.out, said.err, *(content.decode() for _, content in written(tmp_path))]
    assert any("RuntimeError" in text for text in texts)
    assert not any(secret in text for text in texts for secret in (PASSWORD, HUB))


def test_a_traceback_hides_them_too():
    code = (
        "import sys; from histill import cli\n"
        f"def fails(): raise RuntimeError({f'403 for {ADDRESS} {OWN}'!r})\n"
        "cli.app = fails; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeError: 403 for https://…@store.example.org" in done.stderr
    assert PASSWORD not in done.stderr.replace(code, "")
    assert f" {OWN}\n" not in done.stderr


@pytest.mark.parametrize("folder", ["/data/Smith, John (ward: 7)", "/data/Smith John", "in/Smith; J."])
def test_the_report_names_no_folder_of_a_slide(folder, tmp_path):
    path = f"{folder}/a b.svs"
    write_sheet(tmp_path / "slides.csv", ("slide_id", "patient_id", "path"), [("s", "p", path)])
    said = {"reason": f"{path}: truncated", "mend": f"copy {path} again", "warnings": [f"{path}: odd"]}
    write_batch(tmp_path / "receipts" / "inspect.json", "inspect", [Receipt("s", "inspect", QUARANTINED, "r", **said)])
    config = complete({"results": str(tmp_path), "cohort": {"slides": str(tmp_path / "slides.csv")}})
    facts = collect(config, tmp_path)
    assert "Smith" not in str([facts["failures"], facts["warnings"]])
    assert facts["failures"][0]["reason"] == "…/a b.svs: truncated"


@pytest.mark.workflow
def test_a_run_on_pseudonyms_holds_no_name_and_no_secret(tmp_path, monkeypatch):
    """Of two slides, one damaged; every file that the run has written, Snakemake's own included."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Miller Jane").mkdir()
    rows = []
    for index in range(2):
        path = tmp_path / "Miller Jane" / f"Doe-{index} 1950-01-01.tif"
        write_slide(path, 512 + 128 * index)
        rows.append((f"Doe-{index}", f"MRN{index}777", path))
    rows[1][2].write_bytes(rows[1][2].read_bytes()[:3000])
    write_sheet(tmp_path / "slides.csv", ("slide_id", "patient_id", "path"), rows)
    write_config(tmp_path, {"results": "unused", "batch_size": 8, "cohort": {"slides": "slides.csv"}})
    key = tmp_path / "key"
    key.write_bytes(bytes(range(48)))
    key.chmod(0o600)
    pseudonymise("config.yaml", key, "study")
    work = tmp_path / "work"  # what is searched is what the run wrote
    work.mkdir()
    (work / "study").symlink_to(tmp_path / "study")
    (work / "config.yaml").symlink_to(tmp_path / "study" / "config.yaml")
    secrets = {"HF_TOKEN": HUB, "HOSPITAL_PASSWORD": OWN, "MODEL_API_KEY": PASSWORD}
    done = snakemake(work, "tissue", **secrets, USER="someones-login", LOGNAME="someones-login")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = [*written(tmp_path / "study"), *written(work / ".snakemake")]
    assert any(b"quarantined" in content for _, content in found)
    assert any(path.suffix == ".log" for path, _ in found)
    for path, content in [*found, (work, (done.stdout + done.stderr).encode())]:
        for secret in ("Miller", "Doe-", "1950", "MRN", HUB, OWN, PASSWORD):
            assert secret.encode() not in content, f"{secret} in {path}"
    # Snakemake's own log names user and machine; results do not.
    assert not [path for path, content in written(tmp_path / "study") if b"someones-login" in content]
