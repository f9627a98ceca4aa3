"""Slide readers behind one protocol: pixels of any region at any size, in level-0 coordinates."""

from histill.slides.readers.levels import Level
from histill.slides.readers.protocol import SlideReader
from histill.slides.readers.registry import AUTO, READERS, check_file, open_slide

__all__ = ["AUTO", "READERS", "Level", "SlideReader", "check_file", "open_slide"]
