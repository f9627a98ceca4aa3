"""The expression table's part of the page, from the stage's own files."""

import numpy as np
import pytest

from histill import config
from histill.report.stage import run
from histill.report.transcriptome import transcriptome_facts, transcriptome_figure
from histill.transcriptome import stage
from histill.transcriptome.gene_sets import members, subspaces


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(config, results) of the transcriptome stage on 12 samples, one with next to no reads."""
    results = tmp_path_factory.mktemp("rna")
    complete = config.complete({"results": str(results), "cohort": {}, "tasks": {}})
    genes = sorted({gene for sets in subspaces(complete).values() for gene in members(sets)})
    counts = np.random.default_rng(0).poisson(900, (len(genes), 12))
    counts[:, 4] //= 100
    lines = ["gene," + ",".join(f"P{i:02d}" for i in range(12))]
    lines += [f"{gene}," + ",".join(map(str, row)) for gene, row in zip(genes, counts.tolist(), strict=True)]
    (results / "counts.csv").write_text("\n".join(lines) + "\n")
    stage.run(path=results / "counts.csv", config=complete, results=results)
    return complete, results


def test_the_outlier_is_named_and_the_picture_drawn(finished):
    complete, results = finished
    facts = transcriptome_facts(results)
    assert [name for name, _ in facts["outliers"]] == ["P04"]
    assert facts["findings"]["unit"]["value"] == "counts"
    figure = transcriptome_figure(complete, results)
    assert figure["uri"].startswith("data:image/svg+xml;base64,")
    assert figure["colours"] == "site"
    page = run(config=complete, results=results).read_text(encoding="utf-8")
    assert figure["uri"] in page
    assert "all values are whole numbers" in page
    assert page == run(config=complete, results=results).read_text(encoding="utf-8")
