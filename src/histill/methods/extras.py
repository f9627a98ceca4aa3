"""What networks say of test patients beside their prediction: few-shot, in a common space, of neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from histill.methods.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

FEW_SHOT, EMBEDDINGS, NEIGHBOURS = "few-shot.parquet", "embeddings.parquet", "neighbours.parquet"
Table = dict[str, list]


def tables(
    checkpoint: Checkpoint,
    patients: list[str],
    patient: np.ndarray,
    outputs: Iterable[dict[str, Any]],
    draws: list[list[int]],
) -> dict[str, Table]:
    """Name of a file -> its columns; no file for what the network does not say.

    Parameters
    ----------
    patient
        Number of the patient of each bag [I].
    outputs
        Of each bag (`histill.methods.predict.each_output`).
    draws
        Shots, draw and number of patients of each few-shot head [H].
    """
    import torch

    outputs = [{name: value for name, value in output.items() if name in _SAID} for output in outputs]
    if not outputs:
        return {}
    said, number = outputs[0], torch.from_numpy(patient)
    found = {}
    if "few_shot" in said:
        found[FEW_SHOT] = _few_shot(checkpoint, patients, number, outputs, draws)
    if "aligned" in said:
        found[EMBEDDINGS] = _embeddings(patients, number, outputs)
    if "neighbours" in said:
        found[NEIGHBOURS] = _neighbours([patients[index] for index in patient], outputs)
    return found


_SAID = ("few_shot", "aligned", "neighbours", "present")


def _joined(outputs: list[dict], name: str) -> Tensor:
    """Rows [I, ...] of all bags, of the one level that such networks read."""
    import torch

    return torch.cat([next(iter(output[name].values())).cpu() for output in outputs])


def _few_shot(
    checkpoint: Checkpoint, patients: list[str], number: Tensor, outputs: list[dict], draws: list[list[int]]
) -> Table:
    import torch

    from histill.methods.outputs import probabilities, risk
    from histill.methods.slides import mean_over_slides

    survival = checkpoint.labels.task.type == "survival"
    logits, present = _joined(outputs, "few_shot"), _joined(outputs, "present")
    table: Table = {"patient_id": [], "shots": [], "draw": []}
    values = []
    for index, (shots, draw, _) in enumerate(draws):
        predicted = mean_over_slides(probabilities(logits[:, index], survival), present, number)
        values.append(risk(predicted).unsqueeze(1) if survival else predicted)
        table["patient_id"] += patients
        table["shots"] += [shots] * len(patients)
        table["draw"] += [draw] * len(patients)
    names = ["risk"] if survival else [f"p:{name}" for name in checkpoint.labels.classes]
    columns = torch.cat(values).double().T.tolist()
    return table | dict(zip(names, columns, strict=True))


def _embeddings(patients: list[str], number: Tensor, outputs: list[dict]) -> Table:
    """Vectors of slide and RNA in the common space, of several slides the mean."""
    from histill.methods.slides import mean_over_slides

    aligned, present = [output["aligned"] for output in outputs], _joined(outputs, "present")
    table: Table = {"patient_id": patients, "split": ["test"] * len(patients)}
    for name in ("slide", "rna"):
        table[name] = mean_over_slides(_joined(aligned, name), present, number).numpy().astype(np.float32).tolist()
    return table


def _neighbours(patients: list[str], outputs: list[dict]) -> Table:
    """A row a bag, with the patient of each."""
    rows = [output["neighbours"] for output in outputs]
    return {
        "patient_id": patients,
        **{name: [row[name][0].tolist() for row in rows] for name in ("case", "weight", "similarity", "abstention")},
    }
