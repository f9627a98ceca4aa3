"""Tile encoders: recipes, builders and preprocessing; tile -> vector."""
