"""The synthetic cohort: slides, clinical sheet and expression table made from a seed, to try everything on."""
