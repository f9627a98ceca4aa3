"""Time and memory of the transcriptome stage on a large table of synthetic counts.

    python benchmarks/transcriptome.py [--samples 10000] [--genes 20000]

The table is parquet, samples × HGNC symbols (those of the gene sets first), Poisson counts of log-normal means and of
samples of different depth, named by TCGA barcodes. The stage runs in a process of its own, from reading to scores;
printed are its wall time and its largest memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histill.config import complete
from histill.subspaces import SUBSPACES
from histill.transcriptome import gene_sets, identifiers_table, stage

BLOCK = 2500  # samples written at a time


def write_table(path: Path, samples: int, genes: int) -> None:
    """Counts [samples, genes] as float32, written in blocks."""
    draw = np.random.default_rng(0)
    known = set(identifiers_table.genes()["symbol"])
    members = known & {gene for space in SUBSPACES for own in gene_sets.shipped(space).values() for gene in own}
    symbols = sorted([*sorted(members), *draw.permutation(sorted(known - members)).tolist()][:genes])
    means = np.exp(draw.normal(3, 2.5, genes))
    schema = pa.schema([("sample_id", pa.string()), *((symbol, pa.float32()) for symbol in symbols)])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, samples, BLOCK):
            rows = range(start, min(start + BLOCK, samples))
            counts = draw.poisson(means * draw.gamma(2, 0.5, (len(rows), 1))).astype(np.float32)
            names = [f"TCGA-{row // 10_000:02d}-{row % 10_000:04d}-01A" for row in rows]
            writer.write_table(pa.table([names, *(column for column in counts.T.copy())], schema=schema))


def run_stage(path: Path, results: Path) -> None:
    """The stage, and what it took."""
    config = complete({"results": str(results), "cohort": {}, "transcriptome": {"matrix": {"patient": "tcga"}}})
    start = time.monotonic()
    receipt = stage.run(path=path, config=config, results=results)
    seconds, memory = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    counts = receipt["counts"]
    print(f"{counts['samples']:,} samples × {counts['genes']:,} genes: {seconds:.0f} s, {memory:.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.parquet"
        context = multiprocessing.get_context("spawn")  # memory of the writer is not the stage's
        for target, arguments in ((write_table, (path, given.samples, given.genes)), (run_stage, (path, Path(folder)))):
            process = context.Process(target=target, args=arguments)
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
