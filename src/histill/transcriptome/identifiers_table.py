"""The shipped table of human gene names (`resources/genes/hgnc.tsv.gz`): any name -> current HGNC symbol."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import histill

if TYPE_CHECKING:
    import pandas

HGNC = Path(histill.__file__).parent / "resources" / "genes" / "hgnc.tsv.gz"
LISTS = {"previous": "previous", "alias": "alias", "former": "former_ensembl"}
SEPARATOR = "|"


@cache
def genes() -> pandas.DataFrame:
    """The table: hgnc_id, symbol, ensembl, entrez, previous, alias, former_ensembl; text, lists joined by |."""
    import pandas

    return pandas.read_csv(HGNC, sep="\t", dtype=str, keep_default_na=False)


@cache
def index(kind: str) -> pandas.Series:
    """Name -> current symbol; several symbols joined by | where a name is of several genes.

    Parameters
    ----------
    kind
        What the names are: `current` (symbols), `previous`, `alias`, `ensembl` (without version), `former` (Ensembl ids
        that GENCODE gave to the gene and HGNC no longer lists) or `entrez`.
    """
    import pandas

    table = genes()
    names = table["symbol"] if kind == "current" else table[LISTS.get(kind, kind)]
    if kind in LISTS:
        names = names.str.split(SEPARATOR).explode()
    names = names[names != ""]
    found = table["symbol"].loc[names.index].set_axis(names.to_numpy())
    twice = found.index.duplicated(keep=False)
    if not twice.any():
        return found
    shared = found[twice].groupby(level=0).agg(lambda symbols: SEPARATOR.join(sorted(set(symbols))))
    return pandas.concat([found[~twice], shared])
