"""Transcripts to genes, by the user's table or by the names that GENCODE's FASTA gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from histill.errors import HistillError
from histill.transcriptome.identifiers import ensembl_ids, group_columns
from histill.transcriptome.read import Finding
from histill.transcriptome.read_columns import read_columns

if TYPE_CHECKING:
    import pandas

TRANSCRIPT_COLUMNS = ("transcript", "transcript_id", "txname", "tx_name", "tx", "tx_id", "target_id", "name")
GENE_COLUMNS = ("gene", "gene_id", "geneid", "ens_gene", "ensembl_gene_id", "gene_name", "symbol")
MAX_WITHOUT_GENE = 0.2  # more transcripts without a gene: the table is of another annotation
GENCODE = re.compile(r"ENST[^|]*\|(ENSG[^|]*)\|")


def to_genes(
    path: Path, names: np.ndarray, values: np.ndarray, tx2gene: str | Path | None
) -> tuple[np.ndarray, np.ndarray, Finding]:
    """Sums of each gene's transcripts.

    Parameters
    ----------
    names, values
        Transcripts, and [samples, transcripts] of counts, TPM or FPKM.
    tx2gene
        Table of transcripts and their genes; without one GENCODE's long names must carry the gene.

    Returns
    -------
    names, values
        Genes, sorted, and float32 [samples, genes].
    finding
        How many transcripts were summed.

    Raises
    ------
    HistillError
        When there is no table, or it gives no gene for more than a fifth of the transcripts.
    """
    import pandas

    transcripts = pandas.Series(names, dtype=str)
    if tx2gene is None:
        genes = transcripts.str.extract(f"^{GENCODE.pattern}")[0]
        if genes.isna().any():
            raise HistillError(
                f"{path}: rows are transcripts, such as '{names[0]}'",
                mend="set transcriptome.matrix.tx2gene to a table of transcripts and genes of the same annotation",
            )
        source, by = "gene ids in the transcripts' names", "detected"
    else:
        table = read_tx2gene(tx2gene)
        genes = transcripts.map(table)
        if genes.isna().all():
            bare = table.set_axis(table.index.str.replace(r"[.|].*$", "", regex=True))
            genes = ensembl_ids(transcripts).map(bare[~bare.index.duplicated()])
        source, by = Path(tx2gene).name, "config"
    lost = float(genes.isna().mean())
    if lost > MAX_WITHOUT_GENE:
        raise HistillError(
            f"{tx2gene} gives no gene for {lost:.0%} of the transcripts in {path}, such as "
            f"'{names[int(genes.isna().argmax())]}'",
            mend="give the table of the annotation that the samples were quantified with",
        )
    kept = np.flatnonzero(genes.notna())
    unique, codes = np.unique(genes.to_numpy()[kept].astype(str), return_inverse=True)
    evidence = f"{len(kept)} of {len(names)} transcripts summed to {len(unique)} genes by {source}"
    return unique, group_columns(values, kept, codes, len(unique), average=False), Finding("summed", by, evidence)


def read_tx2gene(path: str | Path) -> pandas.Series:
    """Transcript -> gene of a table with or without a header.

    Raises
    ------
    HistillError
        When the columns cannot be told, or a transcript has two genes.
    """
    import pandas

    cells = read_columns(path, lambda header: (list(range(len(header))), [])).text
    lower = {name.lower(): name for name in cells}
    transcript = next((lower[name] for name in TRANSCRIPT_COLUMNS if name in lower), None)
    gene = next((lower[name] for name in GENE_COLUMNS if name in lower and lower[name] != transcript), None)
    if transcript is None and gene is None and next(iter(cells)).startswith("ENST") and len(cells) >= 2:
        transcript, gene, *_ = cells  # no header: the first line is a row
        cells = {name: [name, *cells[name]] for name in (transcript, gene)}
    if transcript is None or gene is None:
        raise HistillError(
            f"{path} has no columns of transcripts and genes; it has {', '.join(cells)}",
            mend="name the columns transcript_id and gene_id",
        )
    table = pandas.DataFrame({"transcript": cells[transcript], "gene": cells[gene]}).dropna().drop_duplicates()
    twice = table["transcript"].duplicated()
    if twice.any():
        raise HistillError(
            f"{path}: transcript '{table['transcript'][twice].iloc[0]}' has several genes",
            mend="keep one row a transcript",
        )
    return table.set_index("transcript")["gene"]
