from __future__ import annotations

import hmac

import pytest

from histill.data import pseudonyms as module
from histill.data.pseudonyms import pseudonym, pseudonyms
from histill.errors import HistillError
from histill.provenance import keep_secret


def test_pseudonyms_follow_from_the_key():
    code = pseudonym("TCGA-05-4244", b"key")
    digest = hmac.new(b"key", b"TCGA-05-4244", "sha256").hexdigest()
    assert code == int(digest[:16], 16) >> 1
    assert 0 <= code < 2**63
    assert code != pseudonym("TCGA-05-4244", b"other")
    assert code != pseudonym("TCGA-05-4245", b"key")


def test_collisions_are_detected(monkeypatch):
    assert len(set(pseudonyms([f"P{number}" for number in range(100)], b"key").values())) == 100
    monkeypatch.setattr(module, "pseudonym", lambda patient, key: len(patient))
    with pytest.raises(HistillError, match="P1 and P2"):
        pseudonyms(["P1", "P10", "P2"], b"key")


def test_a_secret_is_made_once_and_is_its_owners(tmp_path):
    path = tmp_path / "cohort" / "pseudonyms.key"
    secret = keep_secret(path)
    assert len(secret) == 32
    assert keep_secret(path) == secret
    assert keep_secret(tmp_path / "other.key") != secret
    assert path.stat().st_mode & 0o077 == 0
    assert [own.name for own in path.parent.iterdir()] == [path.name]
