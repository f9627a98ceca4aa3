"""Disentangled multi-modal learning (Zhang et al., arXiv 2508.16479): tumour and microenvironment subspaces.

The teacher reads slide and genes, the student the slide alone.
"""
