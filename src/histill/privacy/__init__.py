"""Pseudonyms in place of ids, given at the sheets, before anything of a run is written."""
