"""The counts of the synthetic cohort."""

from __future__ import annotations

import re

import numpy as np
import pytest

from histill.demo.design import design
from histill.demo.expression import background_genes, counts, programme_genes, write_counts
from histill.errors import HistillError

OPTIONS = {"patients": 48, "seed": 1, "size_px": 1024}
PROGRAMMES = {
    "tumor": [f"TUM{index}" for index in range(60)] + ["SHARED"],
    "microenvironment": [f"ENV{index}" for index in range(60)] + ["SHARED"],
}
BACKGROUND = [f"BG{index}" for index in range(150)]


@pytest.fixture(scope="module")
def table():
    return counts(OPTIONS, design(OPTIONS), PROGRAMMES, BACKGROUND)


def test_counts_are_whole_numbers_that_vary_more_than_poisson(table):
    genes, samples, values = table
    assert genes == sorted(set(genes))
    assert values.shape == (len(genes), len(samples)) == (271, 43)
    assert np.issubdtype(values.dtype, np.integer)
    assert values.min() >= 0
    mean, variance = values.mean(1), values.var(1, ddof=1)
    assert (variance > 2 * mean)[mean > 20].mean() > 0.95
    dispersion = ((variance - mean) / mean**2)[mean > 20]
    assert np.quantile(dispersion, 0.9) > 1.5 * np.quantile(dispersion, 0.1)
    depth = values.sum(0)
    assert depth.max() > 1.8 * depth.min()


def test_factors_drive_their_programme_and_no_other_gene(table):
    genes, samples, values = table
    latents = {patient.patient_id: (patient.tumor, patient.microenvironment) for patient in design(OPTIONS)}
    factors = np.array([latents[sample] for sample in samples])
    logs = np.log1p(values / values.sum(0) * 1e6)
    z = (logs - logs.mean(1, keepdims=True)) / logs.std(1, keepdims=True)

    def correlation(prefix: str, factor: int) -> float:
        score = z[[gene.startswith(prefix) for gene in genes]].mean(0)
        return float(np.corrcoef(score, factors[:, factor])[0, 1])

    assert correlation("TUM", 0) > 0.8
    assert correlation("ENV", 1) > 0.8
    assert abs(correlation("TUM", 1)) < 0.4
    assert abs(correlation("ENV", 0)) < 0.4
    assert abs(correlation("BG", 0)) < 0.6


def test_same_seed_gives_the_same_bytes(table, tmp_path):
    again = counts(OPTIONS, design(OPTIONS), PROGRAMMES, BACKGROUND)
    write_counts(tmp_path / "a.tsv.gz", *table)
    write_counts(tmp_path / "b.tsv.gz", *again)
    assert (tmp_path / "a.tsv.gz").read_bytes() == (tmp_path / "b.tsv.gz").read_bytes()


def test_shipped_lists_are_symbols_and_apart():
    background = background_genes()
    programmes = programme_genes()
    assert len(background) >= 250
    assert background == sorted(set(background))
    assert all(re.fullmatch(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)?", gene) for gene in background)
    assert not set(background) & {gene for genes in programmes.values() for gene in genes}
    assert all(len(genes) > 100 for genes in programmes.values())


def test_missing_lists_are_named(tmp_path):
    with pytest.raises(HistillError, match=r"tumor\.gmt"):
        programme_genes(tmp_path)
    with pytest.raises(HistillError, match=r"genes\.txt"):
        background_genes(tmp_path / "genes.txt")
