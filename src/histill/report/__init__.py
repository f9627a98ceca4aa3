"""Everything a run found, on one self-contained HTML page."""
