"""The transcriptome stage: any expression table -> patients × gene symbols on a log scale, and its readers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histill.errors import HistillError
from histill.provenance import atomic_file, digest, file_digest, write_json
from histill.software import sign
from histill.stages import recipe
from histill.transcriptome import gene_sets, matrix, normalise, quality, scores

if TYPE_CHECKING:
    import h5py
    import pandas

OUTPUT = "transcriptome/expression.h5ad"
GENES = "transcriptome/genes.parquet"
SAMPLES = "transcriptome/samples.parquet"
COVERAGE = "transcriptome/gene_sets.parquet"
FATES = ("kept", "renamed", "merged", "dropped")


def run(*, path: str | Path, config: dict[str, Any], results: str | Path) -> dict[str, Any]:
    """Write the expression store, what became of genes and samples, and the receipt, which is returned.

    `expression.h5ad` is what models read. Beside it, for readers: `genes.parquet` (fate of every name of the table),
    `samples.parquet` (quality and scores of every sample) and `gene_sets.parquet` (what is measured of every set).

    Parameters
    ----------
    path
        The expression table, or a folder with one file a sample.
    config
        A complete config; `transcriptome.matrix` and `transcriptome.gene_sets` are read.
    results
        The results folder.

    Raises
    ------
    HistillError
        When the table is refused; nothing has been written then.
    """
    import pandas

    results, options = Path(results), config["transcriptome"]["matrix"]
    sets, policy = gene_sets.subspaces(config), config["transcriptome"]["gene_sets"]
    read = matrix.read(path, options)
    scaled = normalise.log_scale(
        read.values, read.unit, read.library, method=options["count_scale"], lengths=read.lengths
    )
    thin = gene_sets.check_coverage(sets, read.genes, min_genes=policy["min_genes"], small_sets=policy["small_sets"])
    samples = quality.table(read, scaled) | scores.subspace_scores(
        scaled, read.genes, sets, min_genes=policy["min_genes"]
    )

    sources = matrix.digests(path, options)
    scale = normalise.COUNT_SCALES[options["count_scale"]] if read.unit == "counts" else normalise.SCALES[read.unit]
    record = {"source": Path(path).name, "source_digest": sources["expression"], "scale": scale, **read.record()}
    counts = read.values if read.unit == "counts" else None
    content = write(results / OUTPUT, scaled, read.samples, read.patients, read.genes, record, counts=counts)
    tables = {
        GENES: read.mapping,
        SAMPLES: pandas.DataFrame(samples),
        COVERAGE: pandas.DataFrame(gene_sets.coverage_table(sets, read.genes)),
    }
    fates = read.mapping["fate"].value_counts()
    receipt = {
        "stage": "transcriptome",
        "recipe": recipe("transcriptome", config),
        "inputs": {**sources, "gene_sets": digest(sets)},
        "outputs": {OUTPUT: content},
        "tables": {name: _write_table(results / name, table) for name, table in tables.items()},
        "counts": {
            "samples": len(read.samples),
            "patients": len(set(read.patients)),
            "genes": len(read.genes),
            **{f"{fate}_names": int(fates.get(fate, 0)) for fate in FATES},
            "dropped_samples": len(read.dropped_samples),
            "outliers": sum(1 for reason in samples["outlier"] if reason),
        },
        "warnings": [*read.warnings, *thin, *_outlier_warning(samples)],
        "coverage": {space: gene_sets.coverage(own, read.genes) for space, own in sets.items()},
        "info": record,
    }
    receipt = sign(results, receipt)
    write_json(results / "receipts" / "transcriptome.json", receipt)
    return receipt


def _outlier_warning(samples: dict[str, list]) -> list[str]:
    found = [f"{name}: {why}" for name, why in zip(samples["sample"], samples["outlier"], strict=True) if why]
    if not found:
        return []
    return [f"{len(found)} samples stand apart from the others, such as {found[0]}; they are kept"]


def _write_table(path: Path, table: pandas.DataFrame) -> str:
    """Write a parquet file and return its digest."""
    with atomic_file(path) as part:
        table.to_parquet(part, index=False)
    return file_digest(path)


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
    return _content_digest(matrices, samples, patients, genes, record)


def _content_digest(matrices: dict[str, np.ndarray], samples, patients, genes, record: dict[str, Any]) -> str:
    hashes = {name: hashlib.sha256(matrix).hexdigest() for name, matrix in matrices.items()}
    return digest({**hashes, "samples": samples, "patients": patients, "genes": genes, "record": record})


def content_digest(path: str | Path) -> str:
    """Digest of an expression file's content: what `write` returned of it, if nothing has changed.

    Raises
    ------
    HistillError
        When the file cannot be read.
    """
    import h5py

    try:
        with h5py.File(path) as handle:
            matrices = {"X": handle["X"][:]} | {name: matrix[:] for name, matrix in handle["layers"].items()}
            samples, genes = (handle[axis][handle[axis].attrs["_index"]].asstr()[:].tolist() for axis in ("obs", "var"))
            patients = handle["obs/patient_id"].asstr()[:].tolist()
            record = json.loads(handle["uns/histill"].asstr()[()])
    except (OSError, KeyError, ValueError) as error:
        raise HistillError(f"{path} cannot be read: {error}", mend="run: snakemake -R transcriptome") from None
    return _content_digest(matrices, samples, patients, genes, record)


def patients(path: str | Path) -> list[str]:
    """Patient of each sample of an expression file; read without pandas."""
    import h5py

    try:
        with h5py.File(path) as handle:
            return [str(patient) for patient in handle["obs/patient_id"].asstr()[:]]
    except (OSError, KeyError) as error:
        raise HistillError(f"{path} cannot be read: {error}", mend="run: snakemake -R transcriptome") from None


def by_patient(path: str | Path, *, layer: str | None = None) -> tuple[list[str], np.ndarray, list[str]]:
    """One row a patient.

    Parameters
    ----------
    layer
        `counts` for the counts that the file keeps beside its logarithms, which are read without it.

    Returns
    -------
    patient_ids
        Sorted.
    matrix
        float64 [patients, genes].
    genes
        Gene symbols.

    Raises
    ------
    HistillError
        When the file cannot be read, has no such layer, or holds a patient twice.
    """
    import h5py

    own = patients(path)
    order = sorted(range(len(own)), key=own.__getitem__)
    ids = [own[row] for row in order]
    if len(set(ids)) < len(ids):
        raise HistillError(f"{path} holds a patient twice", mend="run: snakemake -R transcriptome")
    with h5py.File(path) as handle:
        name = f"layers/{layer}" if layer else "X"
        if name not in handle:
            unit = _record(handle).get("unit", "unknown")
            raise HistillError(
                f"{path} keeps no {layer}: the unit of its table is {unit}",
                mend="give a table of counts, or set transcriptome.transform.normalisation to none",
            )
        x = handle[name][:].astype(np.float64)
        genes = [str(gene) for gene in handle["var"][handle["var"].attrs["_index"]].asstr()[:]]
    return ids, x[order], genes


def scale(path: str | Path) -> str | None:
    """Scale of an expression file's values, one of `normalise.SCALES` and `COUNT_SCALES`; None where it says none."""
    import h5py

    with h5py.File(path) as handle:
        return _record(handle).get("scale")


def _record(handle: h5py.File) -> dict[str, Any]:
    return json.loads(handle["uns/histill"].asstr()[()]) if "uns/histill" in handle else {}
