"""An expression table in any shape -> one row a patient, one column a current HGNC symbol, in the table's unit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histill.errors import HistillError
from histill.provenance import digest, file_digest
from histill.transcriptome import (
    identifiers,
    identifiers_detect,
    lengths,
    lost,
    normalise,
    read_beside,
    repeats,
    samples,
    units,
)
from histill.transcriptome.read import Finding, Table, load
from histill.transcriptome.read_folder import SHEET_GLOB, find_files, load_folder
from histill.transcriptome.read_transcripts import to_genes

if TYPE_CHECKING:
    import pandas

SIDE_FILES = ("sheet", "tx2gene", "annotation", "gene_lengths")  # keys of transcriptome.matrix that name files


@dataclass
class Matrix:
    """A table that has been read, checked and named.

    Attributes
    ----------
    values
        float32 [patients, genes] in `unit`.
    samples, patients
        Of each row; sorted by patient, each patient once. Samples that were averaged are joined by `+`.
    genes
        Current symbols, sorted.
    unit
        Of `values`: a key of `normalise.SCALES`.
    library
        Counts only: all reads counted for any gene, also for genes without a symbol [patients].
    lengths
        Length of each gene in bases [genes] where the config gives a table of them.
    mapping
        What became of each name of the table (`identifiers.resolve`).
    findings
        What was stated or detected, with the evidence: `genes`, `ids`, `unit` and what the format says.
    dropped_samples
        Sample -> reason.
    replicates
        Patient -> its samples, of those that had several.
    warnings
        What a user should know.
    """

    values: np.ndarray
    samples: list[str]
    patients: list[str]
    genes: list[str]
    unit: str
    library: np.ndarray | None
    lengths: np.ndarray | None
    mapping: pandas.DataFrame
    findings: dict[str, Finding]
    dropped_samples: dict[str, str]
    replicates: dict[str, list[str]]
    warnings: list[str]

    def record(self) -> dict[str, Any]:
        """What was found and done, for the receipt and the matrix's own file; plain builtins."""
        return {
            "unit": self.unit,
            "findings": {name: asdict(finding) for name, finding in sorted(self.findings.items())},
            "dropped_samples": self.dropped_samples,
            "replicates": self.replicates,
        }


def files(path: str | Path) -> list[str]:
    """Files of an expression table: itself, or those of a folder that are read, its sample sheet included."""
    path = Path(path)
    if not path.is_dir():
        return [str(path)]
    return [str(file) for file in (*find_files(path)[1], *sorted(path.glob(SHEET_GLOB))[:1])]


def digests(path: str | Path, options: dict[str, Any]) -> dict[str, str]:
    """Digest of the table and of each file that `transcriptome.matrix` names beside it."""
    source = Path(path)
    found = {key: file_digest(options[key]) for key in SIDE_FILES if options[key]}
    if not source.is_dir():
        return {"expression": file_digest(source), **found}
    contents = {Path(file).relative_to(source).as_posix(): file_digest(file) for file in files(source)}
    return {"expression": digest(contents), **found}


@dataclass
class Rows:
    """A table with one row a patient, genes still named as given; fields as of `Matrix`."""

    values: np.ndarray
    samples: list[str]
    patients: list[str]
    genes: list[str]
    unit: str
    findings: dict[str, Finding]
    dropped_samples: dict[str, str]
    replicates: dict[str, list[str]]
    warnings: list[str]


def by_patient(path: str | Path, options: dict[str, Any]) -> Rows:
    """What goes by the names of samples: read a table, choose samples, merge replicates. The first half of `read`."""
    path = str(path)
    table = _load(path, options)
    findings = table.findings
    values, names, patients, genes = _oriented(path, table, options)
    if options["tx2gene"] and not Path(path).is_dir():
        summed, values, findings["transcripts"] = to_genes(Path(path), np.array(genes), values, options["tx2gene"])
        genes = summed.tolist()
    findings["unit"] = units.detect(path, values, options["unit"], findings.get("unit"))
    findings["ids"] = identifiers_detect.kind(path, genes, options["ids"])
    unit, warnings = findings["unit"].value, []
    if unit == "log2_counts":
        warnings += units.odd_offset(values)
        values, unit = units.counts_of_log2(path, values), "counts"

    dropped_samples: dict[str, str] = {}
    if options["patient"] == "tcga":
        kept, patients, dropped_samples = samples.choose_tumours(path, names, tuple(options["sample_types"]))
        values, names = values[kept], [names[index] for index in kept]
        repeated, said = repeats.barcodes_twice(path, values, names)
        warnings += said
        if repeated:
            values = np.delete(values, repeated, axis=0)
            names, patients = _without(names, repeated), _without(patients, repeated)
    values, names, patients, replicates = samples.merge_replicates(values, names, patients, options["replicates"])
    return Rows(values, names, patients, genes, unit, findings, dropped_samples, replicates, warnings)


def read(path: str | Path, options: dict[str, Any]) -> Matrix:
    """Read, check and name a table.

    Parameters
    ----------
    path
        One table, or a folder with one file a sample.
    options
        `transcriptome.matrix` of a complete config.

    Raises
    ------
    HistillError
        When something is in doubt, or the values cannot be what they are said to be; it names the config key.
    """
    rows = by_patient(path, options)
    path, findings, warnings = str(path), rows.findings, rows.warnings
    values, names, patients, genes, unit = rows.values, rows.samples, rows.patients, rows.genes, rows.unit
    measured, empty, twice = _measured(path, values, names, genes)
    own = values if measured.all() else values[:, measured]
    warnings += normalise.check_unit(path, own, unit, names, [genes[index] for index in np.flatnonzero(measured)])
    warnings += repeats.samples_alike(values, names) + repeats.warning(values, genes, twice)
    # Reads of genes without a symbol were sequenced too.
    library = own.sum(axis=1, dtype=np.float64) if unit == "counts" else None
    mapping = identifiers.resolve(
        path,
        genes,
        findings["ids"].value,
        annotation=identifiers.read_annotation(options["annotation"]) if options["annotation"] else None,
        keep_unknown=options["unknown_genes"] == "keep",
        empty=empty,
        repeated=twice,
    )
    if unit in normalise.LINEAR:
        warnings += lost.to_unknown_names(path, own, names, mapping[measured])
    long = None
    if unit == "counts" and options["gene_lengths"]:
        long = _lengths(options["gene_lengths"], mapping, findings["ids"].value)
    values, symbols = identifiers.merge(values, mapping, average=unit not in normalise.LINEAR)
    warnings += lost.warnings(own, values, unit, mapping)
    if unit == "counts" and len(symbols) < normalise.FEW_GENES:
        warnings.append(f"counts per million of {len(symbols)} genes only: give all genes, or TPM")
    return Matrix(
        values, names, patients, symbols, unit, library, long, mapping, findings,
        rows.dropped_samples, rows.replicates, warnings,
    )  # fmt: skip


def _load(path: str, options: dict[str, Any]) -> Table:
    if Path(path).is_dir():
        return load_folder(path, **{key: options[key] for key in ("unit", "strand", "sheet", "tx2gene")})
    return load(path)


def _oriented(path: str, table: Table, options: dict[str, Any]) -> tuple[np.ndarray, list[str], list[str], list[str]]:
    """Values [samples, genes], samples, their patients, and gene names as given."""
    if options["genes"] != "auto" or "genes" not in table.findings:
        axis = identifiers_detect.genes_axis(path, table.rows, table.columns, options["genes"])
        table.findings["genes"] = axis
    values, names, genes = table.values, table.rows, table.columns
    left_out = table.left_out
    if table.findings["genes"].value == "rows":
        if table.patients is not None:
            raise HistillError(f"{path}: genes are rows, but there is a column patient_id", mend="remove that column")
        values, names, genes = table.values.T, table.columns, table.rows
        beside = read_beside.beside_genes(names, values)
        left_out = left_out + [names[index] for index in beside]
        values, names = np.delete(values, beside, axis=0) if beside else values, _without(names, beside)
    elif not Path(path).is_dir():
        beside = read_beside.beside_samples(genes, values)
        left_out = left_out + [genes[index] for index in beside]
        values, genes = np.delete(values, beside, axis=1) if beside else values, _without(genes, beside)
    if left_out:
        evidence = "columns that describe genes or patients, or number the rows; rename one that is a sample or a gene"
        table.findings["left_out"] = Finding(", ".join(left_out), "detected", evidence)
    seen: set[str] = set()
    twice = sorted({name for name in names if name in seen or seen.add(name)})
    if twice and options["patient"] == "same":
        raise HistillError(
            f"{path}: {len(twice)} sample ids occur more than once, such as '{twice[0]}'",
            mend="give every sample an id of its own; several samples of a patient are told by a patient_id column",
        )
    return values, names, table.patients or names, genes


def _without(names: list[str], positions: list[int]) -> list[str]:
    return [name for index, name in enumerate(names) if index not in set(positions)] if positions else names


def _measured(
    path: str, values: np.ndarray, names: list[str], genes: list[str]
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Which names are genes with values (boolean); the positions of genes without any, and of those written twice."""
    measured = np.ones(len(genes), dtype=bool)
    measured[identifiers_detect.summary_lines(genes)] = False
    lines = np.flatnonzero(measured)
    own = values if measured.all() else values[:, measured]
    empty = lines[normalise.missing_genes(path, own, names, [genes[index] for index in lines])]
    repeated = [index for index in repeats.genes_written_twice(values, genes) if measured[index]]
    measured[empty] = measured[repeated] = False
    return measured, empty, repeated


def _lengths(path: str, mapping: pandas.DataFrame, kind: str) -> np.ndarray:
    """Length of each symbol that is left, sorted by symbol; names without a length are dropped from `mapping`.

    Of several names of one symbol the longest counts, as of the two copies of a pseudoautosomal gene.
    """
    import pandas

    known = pandas.Series(lengths.read_lengths(path))
    names = mapping["given"]
    if kind == "ensembl":
        known = known.groupby(identifiers.ensembl_ids(known.index.to_series())).max()
        names = identifiers.ensembl_ids(names)
    kept = mapping["symbol"] != ""
    mapping.loc[kept, "length"] = lengths.lengths_of(path, known.to_dict(), names[kept].tolist())
    lacking = kept & mapping["length"].isna()
    mapping.loc[lacking, ["fate", "symbol"]] = ["dropped", ""]
    mapping.loc[lacking, "reason"] = f"has no length in {Path(path).name}"
    left = mapping[mapping["symbol"] != ""]
    return left.groupby("symbol")["length"].max().to_numpy()
