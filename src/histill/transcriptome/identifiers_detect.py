"""What the names of a table are: which axis holds the genes, and which kind of identifier they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from histill.errors import HistillError
from histill.transcriptome import identifiers_table
from histill.transcriptome.read import Finding

if TYPE_CHECKING:
    import pandas

ENSEMBL = r"ENSG(?:R?\d{10,11})(?:\.\d+)?(?:[_|].*)?"
OTHER_ENSEMBL = r"ENS[A-Z]{0,4}[GTP]\d{6,}.*"  # transcripts, proteins, other species
PAIR = r"[^|]+\|\d+"
NUMBER = r"\d+(?:\.0)?"
# Lines below the genes in the tables of HTSeq and STAR: reads counted for no gene.
SUMMARY = r"__\w+|N_(?:unmapped|multimapping|noFeature|ambiguous)"
KINDS = ("symbol", "ensembl", "entrez", "symbol_entrez")
MIN_GENES = 5
CERTAIN = 0.9  # share of names that must be of one kind
KNOWN_SYMBOLS = 0.5  # less of a real table are symbols: it may hold clone names and novel transcripts


def summary_lines(names: list[str]) -> list[int]:
    """Positions of names that are read counters of HTSeq or STAR (`__no_feature`, `N_unmapped`), not genes."""
    import pandas

    return pandas.Series(names, dtype=str).str.fullmatch(SUMMARY).to_numpy().nonzero()[0].tolist()


def shares(names: list[str]) -> dict[str, float]:
    """Share of distinct names that are surely of each kind; summary lines of HTSeq and STAR are left out.

    Numbers count as Entrez ids when they are known and no running index.
    """
    import pandas

    distinct = pandas.Series(names, dtype=str).drop_duplicates()
    distinct = distinct[~distinct.str.fullmatch(SUMMARY) & (distinct != "")]
    if distinct.empty:
        return dict.fromkeys(KINDS, 0.0)
    known = distinct.isin(identifiers_table.index("current").index)
    known |= distinct.isin(identifiers_table.index("previous").index)
    return {
        "symbol": float(known.mean()),
        "ensembl": float(distinct.str.fullmatch(ENSEMBL).mean()),
        "entrez": _entrez_share(distinct),
        "symbol_entrez": float(distinct.str.fullmatch(PAIR).mean()),
    }


def _entrez_share(distinct: pandas.Series) -> float:
    numbers = distinct[distinct.str.fullmatch(NUMBER)].str.removesuffix(".0")
    if numbers.empty or numbers.astype(float).pipe(lambda n: n.max() - n.min()) < 2 * len(numbers):
        return 0.0
    return float(numbers.isin(identifiers_table.index("entrez").index).sum() / len(distinct))


def genes_axis(path: str, rows: list[str], columns: list[str], setting: str = "auto") -> Finding:
    """The axis that holds the genes, `rows` or `columns`.

    By evidence only: at least five names of one axis are surely genes, and at most a tenth as many of the other.

    Raises
    ------
    HistillError
        When the names do not say; it names `transcriptome.matrix.genes`.
    """
    if setting != "auto":
        return Finding(setting, "config", "transcriptome.matrix.genes")
    count = {axis: len(set(names)) for axis, names in (("rows", rows), ("columns", columns))}
    found = {
        "rows": round(max(shares(rows).values()) * count["rows"]),
        "columns": round(max(shares(columns).values()) * count["columns"]),
    }
    axis, other = sorted(found, key=found.__getitem__, reverse=True)
    text = f"{found['rows']} of {count['rows']} row names and {found['columns']} of {count['columns']} column names"
    if found[axis] < MIN_GENES or 10 * found[other] > found[axis]:
        raise HistillError(
            f"{path}: cannot tell which axis holds the genes: {text} are known genes (rows such as {rows[0]!r}, "
            f"columns such as {columns[0]!r})",
            mend="set transcriptome.matrix.genes to rows or columns",
        )
    return Finding(axis, "detected", f"{text} are known genes")


def kind(path: str, names: list[str], setting: str = "auto") -> Finding:
    """Kind of identifier of the genes: `symbol`, `ensembl`, `entrez` or `symbol_entrez`.

    Raises
    ------
    HistillError
        When the names are of no kind by nine in ten (half, for symbols), or of transcripts or another species; it
        names `transcriptome.matrix.ids`.
    """
    import pandas

    distinct = pandas.Series(names, dtype=str).drop_duplicates()
    if setting in ("auto", "symbol"):
        _check_capitals(path, distinct)
    if setting != "auto":
        return Finding(setting, "config", "transcriptome.matrix.ids")
    foreign = distinct[distinct.str.fullmatch(OTHER_ENSEMBL) & ~distinct.str.fullmatch(ENSEMBL)]
    if len(foreign) > (1 - CERTAIN) * len(distinct):
        raise HistillError(
            f"{path}: {len(foreign)} of {len(distinct)} ids are of transcripts, proteins or another species, such as "
            f"{foreign.iloc[0]!r}",
            mend="give human genes; for transcripts set transcriptome.matrix.tx2gene to a table of their genes",
        )
    found = shares(names)
    best = max(found, key=found.__getitem__)
    text = ", ".join(f"{share:.1%} {name}" for name, share in found.items() if share > 0) or "none is of a known kind"
    others = sum(share for name, share in found.items() if name != best)
    certain = found[best] >= (KNOWN_SYMBOLS if best == "symbol" else CERTAIN) and others <= 1 - CERTAIN
    if not certain or found[best] * len(distinct) < MIN_GENES:
        raise HistillError(
            f"{path}: cannot tell what the {len(distinct)} gene names are ({text}), such as {distinct.iloc[0]!r}",
            mend=f"set transcriptome.matrix.ids to one of {', '.join(KINDS)}",
        )
    return Finding(best, "detected", f"of {len(distinct)} names: {text}")


def _check_capitals(path: str, distinct: pandas.Series) -> None:
    """Refuse names of which most are human symbols only when they are written in capitals, as those of mice are."""
    human = identifiers_table.index("current").index
    small = distinct[~distinct.isin(human) & distinct.str.upper().isin(human)]
    if len(small) > KNOWN_SYMBOLS * len(distinct):
        raise HistillError(
            f"{path}: {len(small)} of {len(distinct)} gene names are human symbols only in capitals, such as "
            f"{small.iloc[0]!r}: they look like those of another species",
            mend="give human genes, of mouse genes their human orthologues; write human symbols in capitals",
        )
