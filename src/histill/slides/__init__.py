"""Slides: readers, resolution, tissue, quality flags and the tile grid."""
