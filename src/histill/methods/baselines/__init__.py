"""Baselines every method is compared with."""
