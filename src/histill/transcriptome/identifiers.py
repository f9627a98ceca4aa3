"""Gene names to current HGNC symbols: what became of every name, and one column a symbol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from histill.errors import HistillError
from histill.transcriptome import identifiers_dates, identifiers_table
from histill.transcriptome.identifiers_detect import PAIR, SUMMARY
from histill.transcriptome.identifiers_table import SEPARATOR

if TYPE_CHECKING:
    import pandas

# What a name was found as, surest first. Of names that lead to one symbol only those found in the surest way stay:
# a table that holds MARCHF1 and MARCH1 measures the second as something else.
FOUND = ("current", "ensembl", "entrez", "former", "previous", "spelling", "date", "alias", "unknown")
ANNOTATION_SYMBOLS = ("symbol", "gene_symbol", "hgnc_symbol", "gene_name", "external_gene_name")
NAMED = {
    "current": "current symbol",
    "ensembl": "Ensembl id",
    "entrez": "Entrez id",
    "former": "former Ensembl id",
    "previous": "previous symbol",
    "spelling": "spelling",
    "date": "date, made by a spreadsheet,",
    "alias": "alias",
}
DISAGREE = 0.2  # pairs of symbol and number that contradict each other: the numbers are no Entrez ids
BLOCK = 256  # samples summed at a time


def resolve(
    path: str,
    names: list[str],
    kind: str,
    *,
    annotation: pandas.Series | None = None,
    keep_unknown: bool = False,
    empty: Sequence[int] = (),
    repeated: Sequence[int] = (),
) -> pandas.DataFrame:
    """Current HGNC symbol of each name.

    Parameters
    ----------
    names
        Genes as the file names them.
    kind
        `symbol`, `ensembl`, `entrez` or `symbol_entrez`.
    annotation
        The user's own table, id without version -> symbol; it goes before the shipped one.
    keep_unknown
        Keep symbols that HGNC does not know under the name they have, instead of dropping them.
    empty
        Positions of names without any value, which are dropped.
    repeated
        Positions of names that stand a second time with the same values, which are dropped.

    Returns
    -------
    pandas.DataFrame
        One row a name, in order: `given`; `symbol` (empty where dropped); `found` (how, one of `FOUND`, `ambiguous` or
        empty); `fate`: kept, renamed, merged or dropped; `reason` (empty where kept).

    Raises
    ------
    HistillError
        When the numbers of `SYMBOL|NUMBER` pairs are no Entrez ids, or no name leads to a symbol.
    """
    import pandas

    table = lookup(path, names, kind, annotation=annotation, keep_unknown=keep_unknown)
    summary = table["given"].str.fullmatch(SUMMARY)
    missing, twice = (
        pandas.Series(np.isin(np.arange(len(table)), np.asarray(rows, dtype=int))) for rows in (empty, repeated)
    )
    table.loc[summary | missing | twice, ["symbol", "found"]] = ""
    _fates(table, summary, missing, twice)
    if not (table["symbol"] != "").any():
        raise HistillError(
            f"{path}: none of its {len(names)} gene names leads to an HGNC symbol, such as {names[0]!r}",
            mend="check transcriptome.matrix.ids and .genes; ids of another annotation need .annotation",
        )
    return table


def lookup(
    path: str, names: list[str], kind: str, *, annotation: pandas.Series | None = None, keep_unknown: bool = False
) -> pandas.DataFrame:
    """Symbol of each name by itself, whatever else the table holds: the first half of `resolve`.

    Returns
    -------
    pandas.DataFrame
        `given`, `symbol` and `found` as of `resolve`; where `found` is `ambiguous`, all symbols joined by `SEPARATOR`.
    """
    import pandas

    given = pandas.Series(names, dtype=str)
    table = pandas.DataFrame({"given": given, "symbol": "", "found": ""})
    bare = given.str.strip()
    if kind in ("ensembl", "entrez"):
        ids = ensembl_ids(bare) if kind == "ensembl" else bare.str.removesuffix(".0")
        labels = ids.map({} if annotation is None else annotation).fillna("")
        _by_symbol(table, labels)
        table.loc[table["found"] == "ambiguous", ["symbol", "found"]] = ""  # the id says more
        for how in ("ensembl", "former") if kind == "ensembl" else ("entrez",):
            _fill(table, ids, how)
    elif kind == "symbol_entrez":
        parts = bare.str.rsplit("|", n=1, expand=True).reindex(columns=[0, 1]).fillna("")
        parts.loc[~bare.str.fullmatch(PAIR), 1] = ""
        _fill(table, parts[1], "entrez")
        _check_pairs(path, table, parts[0])
        labels = parts[0].where(parts[0] != "?", "")
        _by_symbol(table, labels)
    else:
        labels = bare.where(~bare.str.fullmatch(PAIR), bare.str.rsplit("|", n=1).str[0])
        labels = labels.where(labels != "?", "")
        _by_symbol(table, labels)
    if keep_unknown:
        left = (table["found"] == "") & (labels != "") & ~identifiers_dates.are_dates(labels)
        table.loc[left, "found"] = "unknown"
        table.loc[left, "symbol"] = labels[left]
    return table


def ensembl_ids(names: pandas.Series) -> pandas.Series:
    """Ensembl ids without version (`.12`), `_PAR_Y`, `ENSGR` of old releases, and what RSEM or GENCODE append.

    A gene of the pseudoautosomal region has two copies with one symbol; their reads belong together.
    """
    return names.str.replace(r"[.|_].*$", "", regex=True).str.replace(r"^ENSGR(\d{10})$", r"ENSG0\1", regex=True)


def read_annotation(path: str | Path) -> pandas.Series:
    """The user's own table of ids: Ensembl or Entrez id without version -> symbol.

    The symbols' column is called as one of `ANNOTATION_SYMBOLS`; the ids are in the first other column.

    Raises
    ------
    HistillError
        When there is no such column, or an id has two symbols.
    """
    import pandas

    from histill.transcriptome.read_columns import read_columns

    cells = read_columns(path, lambda header: (list(range(len(header))), [])).text
    symbols = next((name for want in ANNOTATION_SYMBOLS for name in cells if name.lower() == want), None)
    ids = next((name for name in cells if name != symbols), None)
    if symbols is None or ids is None:
        raise HistillError(
            f"{path} has no column of gene symbols; it has {', '.join(cells)}",
            mend=f"name the columns id and {' or '.join(ANNOTATION_SYMBOLS)}",
        )
    table = pandas.DataFrame({"id": cells[ids], "symbol": cells[symbols]}).dropna().astype(str)
    table["id"] = ensembl_ids(table["id"])
    table = table.drop_duplicates()
    twice = table[table["id"].duplicated(keep=False)]
    if len(twice):
        raise HistillError(
            f"{path}: {twice['id'].nunique()} ids have several symbols, such as {twice['id'].iloc[0]}: "
            f"{', '.join(twice['symbol'].iloc[:2])}",
            mend="keep one row an id",
        )
    return table.set_index("id")["symbol"]


def _fill(table: pandas.DataFrame, names: pandas.Series, found: str, *, lookup: str | None = None) -> None:
    """Symbols for the names not found yet; an ambiguous one ends the search for its name."""
    symbols = names.where(table["found"] == "", "").map(identifiers_table.index(lookup or found)).fillna("")
    several = symbols.str.contains(SEPARATOR, regex=False)
    hit = symbols != ""
    table.loc[hit, "found"] = found
    table.loc[hit, "symbol"] = symbols[hit]
    table.loc[several, "found"] = "ambiguous"


def _by_symbol(table: pandas.DataFrame, names: pandas.Series) -> None:
    """Symbols for names that are symbols of some time or spelling."""
    for how in ("current", "previous"):
        _fill(table, names, how)
    # C10ORF12 is C10orf12; R writes HLA.A for HLA-A.
    spelling = names.str.replace(r"^(C(?:\d+|X|Y))ORF(\d+)", r"\1orf\2", regex=True)
    for spelt in (spelling, spelling.str.replace(".", "-", regex=False)):
        for lookup in ("current", "previous"):
            _fill(table, spelt.where(spelt != names, ""), "spelling", lookup=lookup)
    dates = identifiers_dates.symbols(names.where(table["found"] == "", ""))
    hit = dates != ""
    table.loc[hit, "symbol"] = dates[hit]
    table.loc[hit, "found"] = np.where(dates[hit].str.contains(SEPARATOR, regex=False), "ambiguous", "date")
    _fill(table, names, "alias")


def _check_pairs(path: str, table: pandas.DataFrame, symbols: pandas.Series) -> None:
    by_symbol = symbols.map(identifiers_table.index("current"))
    both = by_symbol.notna() & (table["found"] == "entrez")
    wrong = both & (by_symbol != table["symbol"])
    if wrong.sum() > DISAGREE * max(both.sum(), 1):
        first = table[wrong].iloc[0]
        raise HistillError(
            f"{path}: in {int(wrong.sum())} of {int(both.sum())} names the symbol and the Entrez id are of different "
            f"genes, such as {first['given']!r} ({first['symbol']} by its id)",
            mend="set transcriptome.matrix.ids to symbol if the numbers are no Entrez ids",
        )


def _fates(table: pandas.DataFrame, summary: pandas.Series, missing: pandas.Series, twice: pandas.Series) -> None:
    """Fill `fate` and `reason`, and empty the symbols of dropped names."""
    ambiguous = table["found"] == "ambiguous"
    candidates = table["symbol"].str.replace(SEPARATOR, ", ", regex=False)
    rank = table["found"].map({how: number for number, how in enumerate(FOUND)})
    usable = rank.notna()
    beaten = usable & (rank > rank[usable].groupby(table["symbol"]).transform("min").reindex(rank.index))
    several = usable & ~beaten & table["symbol"].where(usable & ~beaten).duplicated(keep=False)
    renamed = usable & (table["given"] != table["symbol"])
    table["fate"] = np.select([~usable | beaten, several, renamed], ["dropped", "merged", "renamed"], "kept")
    no_date = ~identifiers_dates.are_dates(table["given"])
    cases = [
        (summary, "counts reads of no gene"),
        (missing, "missing in every sample"),
        (twice, "is written twice, with the same values"),
        (table["given"].str.strip().isin(["", "?"]), "has no name"),
        (ambiguous, "could be any of " + candidates),
        (beaten, "the table holds " + candidates + " under a surer name"),
        (several, "one of several names of " + candidates),
        (renamed, table["found"].map(NAMED).fillna("") + " of " + candidates),
        ((table["found"] == "") & no_date, "is not in the table of gene names"),
        (table["found"] == "", "is a date, made by a spreadsheet of an unknown gene"),
    ]
    table["reason"] = np.select(*zip(*cases, strict=True), "")
    table.loc[table["fate"] == "dropped", "symbol"] = ""


def merge(values: np.ndarray, table: pandas.DataFrame, *, average: bool) -> tuple[np.ndarray, list[str]]:
    """One column a symbol, sorted by symbol: columns of one symbol are summed, or averaged on a log scale.

    Parameters
    ----------
    values
        [samples, names].
    table
        Of `resolve`, one row a name.

    Returns
    -------
    values
        float32 [samples, symbols].
    symbols
        Sorted.
    """
    kept = np.flatnonzero(table["symbol"] != "")
    symbols, codes = np.unique(table["symbol"].to_numpy(dtype=str)[kept], return_inverse=True)
    return group_columns(values, kept, codes, len(symbols), average=average), symbols.tolist()


def group_columns(values: np.ndarray, columns: np.ndarray, codes: np.ndarray, n: int, *, average: bool) -> np.ndarray:
    """Sum or mean of columns by group, float32 [samples, n]; summed in float64, a block of samples at a time.

    Parameters
    ----------
    values
        [samples, columns].
    columns, codes
        Positions of the columns used, and the group of each, 0 to n - 1; no group is empty.
    """
    order = np.argsort(codes, kind="stable")
    columns, codes = columns[order], codes[order]
    starts = np.searchsorted(codes, np.arange(n))
    if n == len(codes):
        return np.ascontiguousarray(values[:, columns], dtype=np.float32)
    out = np.empty((len(values), n), dtype=np.float32)
    sizes = np.diff(np.append(starts, len(codes)))
    for first in range(0, len(values), BLOCK):
        sums = np.add.reduceat(values[first : first + BLOCK, columns].astype(np.float64), starts, axis=1)
        out[first : first + BLOCK] = sums / sizes if average else sums
    return out
