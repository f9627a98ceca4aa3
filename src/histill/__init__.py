"""histill: whole-slide images and bulk transcriptomes in, a model that needs the slide alone out."""

__version__ = "0.1.0"
