"""What quantifiers write, one file a sample: GDC, STAR, salmon, kallisto, RSEM, featureCounts, HTSeq."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histill.errors import HistillError
from histill.transcriptome.read_columns import open_bytes, read_header

STRANDS = ("unstranded", "first", "second")


@dataclass(frozen=True, eq=False)
class Layout:
    """Files of one quantifier.

    Attributes
    ----------
    tool
        Its name.
    pattern
        Of the file name; group 1 is the sample, without groups the sample is the name of the folder.
    names
        Column of the genes or transcripts.
    units
        Unit -> column of the values.
    header
        Column names where the file has no header.
    transcripts
        Rows are transcripts.
    """

    tool: str
    pattern: re.Pattern[str]
    names: str
    units: dict[str, str]
    header: tuple[str, ...] = ()
    transcripts: bool = False


def _layout(tool: str, pattern: str, names: str, units: dict[str, str], **more) -> Layout:
    return Layout(tool, re.compile(pattern + r"(?:\.gz)?"), names, units, **more)


_STAR = {"unstranded": "unstranded", "first": "stranded_first", "second": "stranded_second"}
_RSEM = {"counts": "expected_count", "tpm": "TPM", "fpkm": "FPKM"}
# Of files of one tool beside each other, the first layout is read: genes before transcripts, text before HDF5.
LAYOUTS = (
    _layout(
        "GDC STAR counts",
        r"(.+)\.augmented_star_gene_counts\.tsv",
        "gene_id",
        {"counts": "unstranded", "tpm": "tpm_unstranded", "fpkm": "fpkm_unstranded"},
    ),
    _layout(
        "STAR",
        r"(.+?)[._-]?ReadsPerGene\.out\.tab",
        "gene_id",
        {"counts": "unstranded"},
        header=("gene_id", *_STAR.values()),
    ),
    _layout("salmon", r"quant\.genes\.sf", "Name", {"counts": "NumReads", "tpm": "TPM"}),
    _layout("salmon", r"quant\.sf", "Name", {"counts": "NumReads", "tpm": "TPM"}, transcripts=True),
    _layout("kallisto", r"abundance\.tsv", "target_id", {"counts": "est_counts", "tpm": "tpm"}, transcripts=True),
    _layout("kallisto", r"abundance\.h5", "target_id", {"counts": "est_counts"}, transcripts=True),
    _layout("RSEM", r"(.+)\.genes\.results", "gene_id", _RSEM),
    _layout("RSEM", r"(.+)\.isoforms\.results", "transcript_id", _RSEM, transcripts=True),
    _layout("featureCounts", r"(.+)\.(?:featureCounts|featurecounts)(?:\.txt|\.tsv)?", "Geneid", {"counts": "#7"}),
    _layout("HTSeq", r"(.+)\.htseq[._]counts(?:\.txt|\.tsv)?", "gene_id", {"counts": "n"}, header=("gene_id", "n")),
)


# Columns of one sample; in a table of many they are no samples.
ONE_SAMPLE = frozenset(
    name.lower() for layout in LAYOUTS for name in (*layout.units.values(), *(_STAR.values() if layout.header else ()))
) - {"n", "#7"}


def strand_column(layout: Layout, strand: str) -> str | None:
    """Column of the counts of a strand; None where the tool has no strands."""
    if layout.tool == "STAR" or (layout.tool == "GDC STAR counts" and strand != "unstranded"):
        return _STAR[strand]
    return None


def read_counts(path: Path, layout: Layout, columns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Names (text) of the rows and float32 [rows, columns] of one file; empty cells are NaN.

    Raises
    ------
    HistillError
        When the file cannot be read or has not the columns that its name promises.
    """
    from pyarrow import ArrowInvalid

    try:
        if path.suffix == ".h5":
            return _read_kallisto(path)
        return _read_rows(path, layout, columns)
    except (OSError, EOFError, KeyError, ArrowInvalid) as error:
        raise HistillError(
            f"{path} cannot be read as {layout.tool}: {str(error)[:300]}", mend="check that the file is complete"
        ) from None


def _read_rows(path: Path, layout: Layout, columns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    header, skip = list(layout.header), 0
    if not header:
        header, _, skip = read_header(path)
    columns = [
        header[int(name[1:]) - 1] if name[0] == "#" and len(header) >= int(name[1:]) else name for name in columns
    ]
    missing = [name for name in (layout.names, *columns) if name not in header]
    if missing:
        raise HistillError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(header[:8])}",
            mend=f"give files of {layout.tool} under their own names, or one table",
        )
    wanted = {layout.names: pa.string(), **{name: pa.float32() for name in columns}}
    with open_bytes(path) as stream:
        table = arrow_csv.read_csv(
            stream,
            arrow_csv.ReadOptions(skip_rows=skip, column_names=header, use_threads=False),
            arrow_csv.ParseOptions(delimiter="\t", quote_char=False),
            arrow_csv.ConvertOptions(column_types=wanted, include_columns=list(wanted), strings_can_be_null=False),
        )
    values = np.stack([table[name].to_numpy() for name in columns], axis=1)
    return table[layout.names].to_numpy(), values


def _read_kallisto(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import h5py

    with h5py.File(path) as handle:
        names = handle["aux/ids"].asstr()[:]
        return names.astype(object), handle["est_counts"][:].astype(np.float32)[:, None]
