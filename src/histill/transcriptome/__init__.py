"""Bulk transcriptomes: reading, identifiers, per-sample normalisation, gene sets."""
