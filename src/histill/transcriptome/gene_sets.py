"""Gene sets: GMT files, the two subspaces of a model, and how much of them a matrix covers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import histill
from histill.errors import HistillError
from histill.subspaces import SUBSPACES

SHIPPED = Path(histill.__file__).parent / "resources" / "gene_sets"
LOW_COVERAGE = 0.5
KEEP, ERROR = "keep", "error"  # policies for sets with few genes in the matrix

GeneSets = dict[str, list[str]]


def read_gmt(path: str | Path) -> GeneSets:
    """Gene sets of a GMT file: name -> genes, each once and in the order of the file.

    Raises
    ------
    HistillError
        When the file cannot be read, a line has no gene, or a name occurs twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise HistillError(f"gene sets {path} cannot be read: {error}", mend="give a GMT text file") from None
    sets: GeneSets = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, *rest = (cell.strip() for cell in line.split("\t"))
        genes = list(dict.fromkeys(gene for gene in rest[1:] if gene))
        if not name or not genes:
            raise HistillError(
                f"{path}, line {number}: no name or no gene",
                mend="a GMT line is: name, description, genes, tab-separated",
            )
        if name in sets:
            raise HistillError(
                f"{path}, line {number}: set '{name}' occurs a second time", mend="give each set its own name"
            )
        sets[name] = genes
    if not sets:
        raise HistillError(f"{path} holds no gene set", mend="a GMT line is: name, description, genes, tab-separated")
    return sets


def shipped(name: str) -> GeneSets:
    """Gene sets that come with histill: `tumor`, `microenvironment`, `families` or `hallmark`."""
    names = sorted(path.stem for path in SHIPPED.glob("*.gmt"))
    if name not in names:
        raise HistillError(f"histill ships no gene sets '{name}'", mend=f"take one of {', '.join(names)}, or a path")
    return read_gmt(SHIPPED / f"{name}.gmt")


def subspaces(config: dict[str, Any]) -> dict[str, GeneSets]:
    """Gene sets of both subspaces, `tumor` and `microenvironment`, as `transcriptome.gene_sets` asks for them.

    Genes have their current symbols, as in the expression matrix. A gene of both subspaces is kept in `both`, in the
    one that `shared_genes` names, or in none (`drop`).
    """
    options = config["transcriptome"]["gene_sets"]
    spaces = {name: current(read_gmt(options[name] or SHIPPED / f"{name}.gmt")) for name in SUBSPACES}
    policy = options["shared_genes"]
    if policy == "both":
        return spaces
    shared = set(members(spaces["tumor"])) & set(members(spaces["microenvironment"]))
    kept: dict[str, GeneSets] = {}
    for space, sets in spaces.items():
        left = (
            sets if policy == space else {name: [g for g in genes if g not in shared] for name, genes in sets.items()}
        )
        kept[space] = {name: genes for name, genes in left.items() if genes}
        if not kept[space]:
            raise HistillError(
                f"no gene of the {space} sets is left: all {len(shared)} stand in both subspaces",
                mend=f"set transcriptome.gene_sets.shared_genes to both, or give other sets than {options[space]}",
            )
    return kept


def current(sets: GeneSets) -> GeneSets:
    """Sets with every name replaced by its current symbol, as `identifiers` finds it for the expression matrix.

    Names of several genes, and names that lead to no symbol, stay as they are: they count as not measured.
    """
    from histill.transcriptome.identifiers import lookup
    from histill.transcriptome.identifiers_detect import shares

    names = members(sets)
    found = shares(names)
    table = lookup("gene sets", names, max(found, key=found.__getitem__))
    told = table[~table["found"].isin(["", "ambiguous"])]
    symbol = dict(zip(told["given"], told["symbol"], strict=True))
    return {name: list(dict.fromkeys(symbol.get(gene, gene) for gene in genes)) for name, genes in sets.items()}


def members(sets: GeneSets) -> list[str]:
    """All genes of several sets, each once, sorted."""
    return sorted({gene for genes in sets.values() for gene in genes})


def coverage(sets: GeneSets, genes: Iterable[str]) -> dict[str, dict[str, int]]:
    """How many of each set's genes a matrix holds: set -> {`found`, `total`}."""
    known = set(genes)
    return {name: {"found": len(known.intersection(own)), "total": len(own)} for name, own in sets.items()}


def coverage_table(spaces: dict[str, GeneSets], genes: Iterable[str]) -> list[dict[str, Any]]:
    """One row a set: `subspace, set, genes, found, coverage` (0 to 1) and `missing` (symbols, comma-separated)."""
    known = set(genes)
    return [
        {
            "subspace": space,
            "set": name,
            "genes": count["total"],
            "found": count["found"],
            "coverage": count["found"] / count["total"],
            "missing": ",".join(gene for gene in sets[name] if gene not in known),
        }
        for space, sets in spaces.items()
        for name, count in coverage(sets, known).items()
    ]


def check_coverage(
    spaces: dict[str, GeneSets], genes: Iterable[str], *, min_genes: int, small_sets: str = KEEP
) -> list[str]:
    """One warning a subspace about the sets of which the matrix holds less than half.

    Parameters
    ----------
    small_sets
        A single set of which the matrix holds fewer than `min_genes` genes: `error` refuses it, `keep` takes the genes
        there are, as panels need it.

    Raises
    ------
    HistillError
        When a subspace has fewer than `min_genes` genes in the matrix, or, with `small_sets="error"`, a set has.
    """
    known = set(genes)
    warnings = []
    for space, sets in spaces.items():
        wanted = members(sets)
        found = len(known.intersection(wanted))
        if found < min_genes:
            raise HistillError(
                f"the expression matrix holds {found} of the {len(wanted)} genes of the {space} sets; "
                f"transcriptome.gene_sets.min_genes asks for {min_genes}",
                mend=f"give sets that fit the matrix in transcriptome.gene_sets.{space}, or lower min_genes",
            )
        counts = coverage(sets, known)
        small = _told(counts, lambda count: count["found"] < min_genes)
        if small and small_sets == ERROR:
            raise HistillError(
                f"fewer than {min_genes} genes of {len(small)} of {len(sets)} {space} sets are in the expression "
                f"matrix: {', '.join(small)}",
                mend=f"give sets that fit the matrix in transcriptome.gene_sets.{space}, lower "
                "transcriptome.gene_sets.min_genes, or set transcriptome.gene_sets.small_sets to keep",
            )
        thin = _told(counts, lambda count: count["found"] < LOW_COVERAGE * count["total"])
        if thin:
            where = f"{len(thin)} of {len(sets)} {space} sets"
            warnings.append(f"less than half of the genes are measured in {where}: {', '.join(thin)}")
    return warnings


def _told(counts: dict[str, dict[str, int]], which: Callable[[dict[str, int]], bool]) -> list[str]:
    return [f"{name} {count['found']} of {count['total']}" for name, count in counts.items() if which(count)]
