"""The page as a browser's parser reads it: html5lib in strict mode, which refuses whatever is not well-formed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_UNREAD = ("style", "script")


class Page:
    """A parsed page.

    Raises
    ------
    html5lib.html5parser.ParseError
        The text breaks a rule of HTML: a tag that is not closed, an attribute given twice, ...
    """

    def __init__(self, text: str):
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
        self.root: Element = parser.parse(text)
        self.ids = [element.get("id") for element in self.root.iter() if element.get("id")]
        self.images, self.links = self.all("img"), self.all("a")
        self.words = " ".join(" ".join(_texts(self.root)).split())

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path.read_text(encoding="utf-8"))

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.root.iter() if element.tag in tags]

    def one(self, tag: str) -> Element:
        (found,) = self.all(tag)
        return found

    def by_id(self, name: str) -> Element:
        (found,) = [element for element in self.root.iter() if element.get("id") == name]
        return found

    def rows(self, caption_id: str) -> list[list[str]]:
        """Cells of the table with the caption, row by row, header included."""
        (table,) = [table for table in self.all("table") if table[0].get("id") == caption_id]
        return [[said(cell) for cell in row if cell.tag in ("th", "td")] for row in table.iter("tr")]

    def alts(self, *holding: str) -> list[str]:
        """Alternative texts that hold all the words."""
        texts = [image.get("alt") for image in self.images]
        return [text for text in texts if all(word in text for word in holding)]


def said(element: Element) -> str:
    """The text of an element, spaces joined."""
    return " ".join(" ".join(_texts(element)).split())


def _texts(element: Element) -> Iterator[str]:
    if element.tag in _UNREAD or not isinstance(element.tag, str):
        return
    yield element.text or ""
    for child in element:
        yield from _texts(child)
        yield child.tail or ""
