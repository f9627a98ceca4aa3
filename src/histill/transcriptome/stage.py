"""The transcriptome stage: any expression table -> samples × gene symbols on a log scale, and readers of the result."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from histill.errors import HistillError
from histill.provenance import atomic_file, digest, file_digest, write_json
from histill.stages import recipe
from histill.transcriptome import gene_sets, identifiers, normalise
from histill.transcriptome.read import Table, load

OUTPUT = "transcriptome/expression.h5ad"
FEW_GENES = 5000  # below, counts per million are per million of a selection


def run(*, path: str | Path, config: dict[str, Any], results: str | Path) -> dict[str, Any]:
    """Write `transcriptome/expression.h5ad` and the receipt, which is returned.

    Parameters
    ----------
    path
        The expression table.
    config
        A complete config; `transcriptome.matrix` is read.
    results
        The results folder.
    """
    results, options = Path(results), config["transcriptome"]["matrix"]
    unit = options["unit"]
    report: dict[str, Any] = {"unit": unit, "scale": normalise.SCALES[unit]}
    warnings: list[str] = []

    values, samples, patients, genes = _oriented(str(path), load(path), options, report)
    values, genes, library = _gene_columns(str(path), values, samples, genes, unit, report, warnings)
    scaled = normalise.log_scale(values, unit, library)
    sets = gene_sets.subspaces(config)
    warnings.extend(gene_sets.check_coverage(sets, genes, min_genes=config["transcriptome"]["gene_sets"]["min_genes"]))

    source = file_digest(path)
    record = {**report, "source": Path(path).name, "source_digest": source}
    content = write(
        results / OUTPUT, scaled, samples, patients, genes, record, counts=values if unit == "counts" else None
    )
    receipt = {
        "stage": "transcriptome",
        "recipe": recipe("transcriptome", config),
        "inputs": {"expression": source, "gene_sets": digest(sets)},
        "outputs": {OUTPUT: content},
        "counts": {
            "samples": len(samples),
            "patients": len(set(patients)),
            "genes": len(genes),
            **{name: len(report[name]) for name in ("dropped_genes", "merged_genes", "dropped_samples")},
        },
        "warnings": warnings,
        "coverage": {space: gene_sets.coverage(own, genes) for space, own in sets.items()},
        "info": record,
    }
    write_json(results / "receipts" / "transcriptome.json", receipt)
    return receipt


def _oriented(
    path: str, table: Table, options: dict[str, Any], report: dict[str, Any]
) -> tuple[np.ndarray, list[str], list[str], list[str]]:
    """Values [samples, genes], samples, their patients, and gene names as given."""
    axis = identifiers.genes_axis(path, table.rows, table.columns, options["genes"])
    values, samples, genes = table.values, table.rows, table.columns
    if axis == "rows":
        if table.patients is not None:
            raise HistillError(f"{path}: genes are rows, but there is a column patient_id", mend="remove that column")
        values, samples, genes = table.values.T, table.columns, table.rows
    report["genes_axis"] = axis
    seen: set[str] = set()
    twice = sorted({sample for sample in samples if sample in seen or seen.add(sample)})
    if twice:
        raise HistillError(
            f"{path}: {len(twice)} sample ids occur more than once, such as '{twice[0]}'",
            mend="give every sample an id of its own; several samples of a patient are told by a patient_id column",
        )
    patients, dropped = table.patients or samples, []
    if options["patient"] == "tcga":
        patients, kept, dropped = identifiers.patients_of_barcodes(path, samples)
        if not kept:
            raise HistillError(f"{path}: none of its {len(samples)} samples is a tumour", mend="check the barcodes")
        values, samples = values[kept], [samples[index] for index in kept]
    report["dropped_samples"] = dropped
    return values, samples, patients, genes


def _gene_columns(
    path: str,
    values: np.ndarray,
    samples: list[str],
    names: list[str],
    unit: str,
    report: dict[str, Any],
    warnings: list[str],
) -> tuple[np.ndarray, list[str], np.ndarray | None]:
    """Checked values [samples, genes] with one column a symbol, and each sample's library size for counts."""
    dropped: dict[str, str] = {}

    def drop(positions: list[int], why: str) -> None:
        nonlocal values, names
        if positions:
            dropped.update({names[index] or "(unnamed)": why for index in positions})
            values, gone = np.delete(values, positions, axis=1), set(positions)
            names = [name for index, name in enumerate(names) if index not in gone]

    drop(identifiers.summary_lines(names), "counts reads of no gene")
    drop(normalise.missing_genes(path, values, samples, names), "missing in every sample")
    warnings.extend(normalise.check_unit(path, values, unit, samples, names))
    # Reads of genes without a symbol were sequenced too.
    library = values.sum(axis=1, dtype=np.float64) if unit == "counts" else None
    symbols = identifiers.symbols(path, names)
    drop([index for index, symbol in enumerate(symbols) if symbol is None], "has no symbol")
    dates = identifiers.spreadsheet_dates(names)
    if dates:
        warnings.append(
            f"{len(dates)} genes are named like dates, such as '{dates[0]}': a spreadsheet has changed them"
        )
    values, genes, merged = identifiers.merge_duplicates(
        values, [symbol for symbol in symbols if symbol is not None], average=unit not in normalise.LINEAR
    )
    if not genes:
        raise HistillError(f"{path} has no gene with a symbol", mend="name the genes by HGNC symbol")
    if merged:
        how = "summed" if unit in normalise.LINEAR else "averaged"
        warnings.append(f"{len(merged)} gene symbols occur more than once and were {how}")
    if unit == "counts" and len(genes) < FEW_GENES:
        warnings.append(f"counts per million of {len(genes)} genes only: give all genes, or TPM")
    report["dropped_genes"] = dropped
    report["merged_genes"] = merged
    return values, genes, library


def write(
    path: str | Path,
    x: np.ndarray,
    samples: list[str],
    patients: list[str],
    genes: list[str],
    record: dict[str, Any],
    *,
    counts: np.ndarray | None = None,
) -> str:
    """Write the AnnData file and return the digest of its content, which does not depend on HDF5's layout."""
    import json

    import anndata
    import pandas

    matrices = {"X": np.ascontiguousarray(x, dtype=np.float32)}
    if counts is not None:
        matrices["counts"] = np.ascontiguousarray(counts, dtype=np.float32)
    table = anndata.AnnData(
        X=matrices["X"],
        obs=pandas.DataFrame({"patient_id": np.array(patients, dtype=object)}, index=samples),
        var=pandas.DataFrame(index=genes),
        layers={name: matrix for name, matrix in matrices.items() if name != "X"},
        # As JSON text: gene names may hold a slash, which HDF5 would take for a group.
        uns={"histill": json.dumps(record, sort_keys=True)},
    )
    with atomic_file(path) as part:
        table.write_h5ad(part, compression="lzf", convert_strings_to_categoricals=False)
    hashes = {name: hashlib.sha256(matrix).hexdigest() for name, matrix in matrices.items()}
    return digest({**hashes, "samples": samples, "patients": patients, "genes": genes, "record": record})


def patients(path: str | Path) -> list[str]:
    """Patient of each sample of an expression file; read without pandas."""
    import h5py

    try:
        with h5py.File(path) as handle:
            return [str(patient) for patient in handle["obs/patient_id"].asstr()[:]]
    except (OSError, KeyError) as error:
        raise HistillError(f"{path} cannot be read: {error}", mend="run: snakemake -R transcriptome") from None


def by_patient(path: str | Path) -> tuple[list[str], np.ndarray, list[str]]:
    """One row a patient: the mean of the patient's samples on the file's scale.

    Samples are averaged in the order of their ids, so the sum rounds the same however the matrix was sorted.

    Returns
    -------
    patient_ids
        Sorted.
    matrix
        float64 [patients, genes].
    genes
        Gene symbols.
    """
    import h5py

    of_sample = patients(path)
    with h5py.File(path) as handle:
        x = handle["X"][:].astype(np.float64)
        samples = handle["obs"][handle["obs"].attrs["_index"]].asstr()[:]
        genes = [str(gene) for gene in handle["var"][handle["var"].attrs["_index"]].asstr()[:]]
    ids = sorted(set(of_sample))
    position = {patient: index for index, patient in enumerate(ids)}
    order = np.argsort(samples, kind="stable")
    matrix = np.zeros((len(ids), x.shape[1]))
    counts = np.zeros(len(ids))
    for row in order:
        target = position[of_sample[row]]
        matrix[target] += x[row]
        counts[target] += 1
    return ids, matrix / counts[:, None], genes
