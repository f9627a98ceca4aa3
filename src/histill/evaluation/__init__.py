"""From test predictions to metrics with intervals, paired differences and survival curves."""
