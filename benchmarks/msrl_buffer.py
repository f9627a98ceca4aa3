"""Time and memory of borrowing from a buffer of cases, by its size: cached, dense, exact and approximate.

    python benchmarks/msrl_buffer.py [--rows 1000 10000 50000] [--dims 128 768] [--queries 200] [--seconds 900]

Cases are synthetic: 30 cohorts, 32 factors of variation and noise, both halves of length 1. Every line is a process of
its own. `made` is the graph of the buffer's cases among themselves and what they give, which a loaded model makes once;
a query is one case by itself, from its node vector to its state; memory is the largest of the whole process. `dense` is
the masked graph over buffer and query, where it fits in 8 GB. `recall` is the share of the exact ten nearest that
approximate search finds for queries of their own. Approximate search needs the extra `ann`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import torch
from torch import Tensor

from histill.methods.msrl.gcn import GCN
from histill.methods.msrl.graph import refine
from histill.methods.msrl.learner import GraphLearner
from histill.methods.msrl.lending import Lenders, lend
from histill.methods.msrl.model import fuse
from histill.methods.msrl.neighbours import exact, recall

NEIGHBOURS, COHORTS, FACTORS = 10, 30, 32
DENSE_LIMIT = 8e9  # bytes
DENSE_COPIES = 8  # of a matrix over all nodes, that the dense graph needs at once


def cases(rows: int, dim: int, seed: int) -> Tensor:
    """Node vectors [rows, 2 dim] of synthetic cases; another seed gives other cases of the same cohorts."""
    fixed, draw = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    halves = []
    for _ in range(2):
        centres = torch.randn(COHORTS, dim, generator=fixed)
        factors = torch.randn(FACTORS, dim, generator=fixed) / FACTORS**0.5
        cohort = torch.arange(rows) % COHORTS
        own = centres[cohort] + torch.randn(rows, FACTORS, generator=draw) @ factors
        halves.append(own + 0.5 * torch.randn(rows, dim, generator=draw))
    return fuse(*halves)


def timed(function: Callable, times: int) -> float:
    """Median seconds of some calls."""
    seconds = []
    for number in range(times):
        start = time.perf_counter()
        function(number)
        seconds.append(time.perf_counter() - start)
    return torch.tensor(seconds).median().item()


@torch.inference_mode()
def measure(rows: int, dim: int, queries: int, way: str) -> list[str]:
    """Cells of a line of the table; `way` is exact, approximate or dense."""
    torch.manual_seed(0)
    learner, gcn = GraphLearner(2 * dim), GCN(2 * dim, dim, dim, 0.0).eval()
    for weight in learner.weights:
        torch.nn.init.uniform_(weight, 0.5, 1.5)
    values, asked = cases(rows, dim, seed=1).half().float(), cases(queries, dim, seed=2)
    codes, unknown = torch.arange(rows), torch.full((queries,), -1)
    if way == "dense":
        if DENSE_COPIES * 4 * rows**2 > DENSE_LIMIT:
            return ["-", "does not fit", "-", "-"]

        def query(number: int) -> None:
            nodes = torch.cat([asked[number : number + 1], values])
            gcn(refine(learner(nodes), NEIGHBOURS, queries=1), nodes)

        return ["-", milliseconds(timed(query, 3)), memory(), "-"]

    start = time.perf_counter()
    lenders = Lenders.of(learner, gcn, values, codes, NEIGHBOURS, search=way)
    made = f"{time.perf_counter() - start:.1f} s"

    def query(number: int) -> None:
        node = asked[number : number + 1]
        embedding = learner(node)
        found = lenders.nearest(embedding, unknown[:1], NEIGHBOURS, learner.similarity)
        lend(node, embedding, found, lenders, learner, gcn)

    seconds, peak = timed(query, queries), memory()
    embedding = learner(asked)
    found = lenders.nearest(embedding, unknown, NEIGHBOURS, learner.similarity)
    wanted = exact(embedding, lenders.embedding, NEIGHBOURS, learner.similarity, cases=(unknown, codes))
    return [made, milliseconds(seconds), peak, f"{recall(found, wanted):.3f}"]


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


def memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB"


def apart(limit: float, *arguments: Any) -> list[str]:
    """`measure` in a process of its own, within so many seconds."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_answer, args=(answers, arguments))
    process.start()
    try:
        return answers.get(timeout=limit)
    except Empty:
        return ["-", f"over {limit:.0f} s", "-", "-"]
    finally:
        process.kill()
        process.join()


def _answer(answers, arguments: tuple) -> None:
    answers.put(measure(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 768])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=900, help="that a line may take")
    given = parser.parse_args()
    print("| d | buffer | search | made | a query | memory | recall@10 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for dim in given.dims:
        for rows in given.rows:
            for way in ("dense", "exact", "approximate"):
                cells = apart(given.seconds, rows, dim, given.queries, way)
                print(f"| {dim} | {rows:,} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
