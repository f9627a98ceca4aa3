"""A folder with one file a sample, as GDC's download tool, STAR, salmon, kallisto, RSEM and others leave it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histill.errors import HistillError
from histill.transcriptome.read import Finding, Table
from histill.transcriptome.read_layouts import LAYOUTS, STRANDS, Layout, read_counts, strand_column
from histill.transcriptome.read_transcripts import to_genes
from histill.transcriptome.samples import Sheet, read_sheet

SHEET_GLOB = "gdc_sample_sheet*.tsv"
STRAND_FILES = 20
STRANDED, UNSTRANDED = 0.8, (0.35, 0.65)  # share of the first strand's reads in both strands'


def load_folder(
    path: str | Path,
    *,
    unit: str = "auto",
    strand: str = "auto",
    sheet: str | Path | None = None,
    tx2gene: str | Path | None = None,
) -> Table:
    """Read all samples of a folder; genes are the columns.

    Counts and TPM of transcripts are summed to genes.

    Parameters
    ----------
    unit
        Column to read: `counts` (also for `auto`), `tpm` or `fpkm`.
    strand
        Strand of the library: `unstranded`, `first`, `second`, or `auto`: by the reads of both strands for STAR, and
        unstranded for GDC, which treats every library so.
    sheet
        Sample sheet; without one a `gdc_sample_sheet*.tsv` in the folder is read, else files or their folders name
        the samples.
    tx2gene
        Table of transcripts and their genes.

    Raises
    ------
    HistillError
        When the folder holds no file of a known tool or files of several, a file disagrees with the others, or
        strand, sheet or transcripts leave a doubt; it names the config key.
    """
    path = Path(path)
    layout, files = find_files(path)
    sheet_path = sheet or next(iter(sorted(path.glob(SHEET_GLOB))), None)
    samples, patients = _samples(path, layout, files, read_sheet(sheet_path) if sheet_path else None)
    column, findings = _column(layout, files, unit, strand)
    findings["genes"] = Finding("columns", "detected", f"files of {layout.tool}, one a sample")
    if sheet_path:
        by = "config" if sheet else "detected"
        findings["sheet"] = Finding(Path(sheet_path).name, by, "names the sample of each file")
    names, values = _read_all(layout, files, column)
    if layout.transcripts:
        names, values, findings["transcripts"] = to_genes(path, names, values, tx2gene)
    return Table(values, samples, names.tolist(), patients, findings)


def find_files(path: Path) -> tuple[Layout, list[Path]]:
    """The layout of a folder and the files that are read, sorted.

    Raises
    ------
    HistillError
        When there is no file of a known tool, files of several, or samples in different forms.
    """
    files: dict[Layout, list[Path]] = {}
    for file in sorted(path.rglob("*")):
        layout = next((layout for layout in LAYOUTS if layout.pattern.fullmatch(file.name)), None)
        if layout and file.is_file():
            files.setdefault(layout, []).append(file)
    tools = sorted({layout.tool for layout in files})
    if len(tools) != 1:
        held = f"holds files of {' and '.join(tools)}" if tools else "holds no file of a known tool"
        known = ", ".join(dict.fromkeys(layout.tool for layout in LAYOUTS))
        raise HistillError(f"{path} {held}", mend=f"give a folder of one of: {known}; or one table")
    best, *others = (layout for layout in LAYOUTS if layout in files)
    names = [_own_name(best, file) for file in files[best]]
    for other in others:
        lost = sorted({_own_name(other, file) for file in files[other]} - set(names))
        if lost:
            raise HistillError(
                f"{path}: {len(files[best])} samples have {files[best][0].name}, but '{lost[0]}' has only "
                f"{files[other][0].name}",
                mend="give all samples in one form",
            )
    return best, files[best]


def _own_name(layout: Layout, file: Path) -> str:
    """Sample by the name of the file, or of its folder where every file has one name."""
    match = layout.pattern.fullmatch(file.name)
    return match[1] if match.re.groups else file.parent.name


def _samples(path: Path, layout: Layout, files: list[Path], sheet: Sheet | None) -> tuple[list[str], list[str] | None]:
    """Sample and, where a sheet says so, patient of each file."""
    if sheet is None:
        if layout.tool.startswith("GDC"):
            raise HistillError(
                f"{files[0].parent}: GDC's file names do not say whose they are, such as {files[0].name}",
                mend="set transcriptome.matrix.sheet to the sample sheet of GDC's portal, or put it into the folder",
            )
        samples = [_own_name(layout, file) for file in files]
        patients = None
    else:
        keys = [next((key for key in _keys(path, layout, file) if key in sheet.samples), None) for file in files]
        if None in keys:
            raise HistillError(
                f"{sheet.path} does not name {keys.count(None)} of {len(files)} files, such as "
                f"{files[keys.index(None)].name}",
                mend="add the files to the sheet, or take them out of the folder",
            )
        samples = [sheet.samples[key] for key in keys]
        patients = [sheet.patients[key] for key in keys] if sheet.patients else None
    seen: dict[str, Path] = {}
    for sample, file in zip(samples, files, strict=True):
        if sample in seen:
            raise HistillError(
                f"{file} and {seen[sample]} are both of sample '{sample}'",
                mend="keep one of them, or name aliquots by their full barcodes in the sheet",
            )
        seen[sample] = file
    return samples, patients


def _keys(path: Path, layout: Layout, file: Path) -> tuple[str, ...]:
    """What a sheet may call a file, surest first."""
    inside = file.relative_to(path).as_posix()
    return inside, f"{file.parent.name}/{file.name}", file.name, file.parent.name, _own_name(layout, file)


def _column(layout: Layout, files: list[Path], unit: str, strand: str) -> tuple[str, dict[str, Finding]]:
    wanted = "counts" if unit == "auto" else unit
    if wanted not in layout.units:
        raise HistillError(
            f"{files[0]}: files of {layout.tool} hold {', '.join(layout.units)}, no {unit}",
            mend=f"set transcriptome.matrix.unit to {' or '.join(layout.units)}",
        )
    column = layout.units[wanted]
    findings = {}
    if wanted == "counts" and strand_column(layout, "first"):
        findings["strand"] = _strand(layout, files, strand)
        column = strand_column(layout, findings["strand"].value) or column
    by = "detected" if unit == "auto" else "config"
    findings["unit"] = Finding(wanted, by, f"column {column} of {layout.tool}")
    return column, findings


def _strand(layout: Layout, files: list[Path], strand: str) -> Finding:
    if strand != "auto":
        return Finding(strand, "config", "transcriptome.matrix.strand")
    if layout.tool != "STAR":
        return Finding("unstranded", "detected", f"{layout.tool} treat every library as unstranded")
    columns = [strand_column(layout, name) for name in STRANDS[1:]]
    share = []
    for file in files[:: max(1, len(files) // STRAND_FILES)]:
        names, values = read_counts(file, layout, columns)
        first, second = values[[not str(name).startswith("N_") for name in names]].sum(axis=0, dtype=np.float64)
        share.append(first / max(first + second, 1.0))
    low, high = min(share), max(share)
    text = f"{low:.0%} to {high:.0%} of stranded reads of {len(share)} files lie on the first strand"
    if low >= STRANDED:
        return Finding("first", "detected", text)
    if high <= 1 - STRANDED:
        return Finding("second", "detected", text)
    if UNSTRANDED[0] <= low and high <= UNSTRANDED[1]:
        return Finding("unstranded", "detected", text)
    raise HistillError(
        f"{files[0].parent}: cannot tell the strand of the libraries: {text}",
        mend=f"set transcriptome.matrix.strand to one of {', '.join(STRANDS)}",
    )


def _read_all(layout: Layout, files: list[Path], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Names, and float32 [files, names] in the order of the first file."""
    import pandas

    names, first = read_counts(files[0], layout, [column])
    index = pandas.Index(names)
    if not index.is_unique:
        raise HistillError(
            f"{files[0]}: '{index[index.duplicated()][0]}' occurs more than once",
            mend="give every row an id of its own",
        )
    values = np.empty((len(files), len(names)), dtype=np.float32)
    values[0] = first[:, 0]
    for row, file in enumerate(files[1:], start=1):
        own, counts = read_counts(file, layout, [column])
        if not np.array_equal(own, names):
            order = pandas.Index(own).get_indexer(index) if len(set(own)) == len(own) == len(names) else np.array([-1])
            if (order < 0).any():
                raise HistillError(
                    f"{file} has other rows ({len(own)}) than {files[0]} ({len(names)})",
                    mend="quantify all samples with one annotation",
                )
            counts = counts[order]
        values[row] = counts[:, 0]
    return names, values
