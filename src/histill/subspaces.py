"""The two subspaces of the disentangled method, in the order that tensors keep.

In a module of its own, so that a student can run where the transcriptome package cannot be imported.
"""

from __future__ import annotations

SUBSPACES = ("tumor", "microenvironment")
JOINT = "joint"  # the one subspace of a network whose fusion is not disentangled
GENES = "genes"  # the one subspace of methods that know of no subspaces
