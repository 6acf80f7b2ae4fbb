"""What every page that people look at must be: whole, self-contained, in its own colours."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """What a browser sees: elements that close in order, their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[str] = []
        self.identities: list[str] = []
        self.values: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.values += [(name, value or "") for name, value in attrs]
        self.identities += [value or "" for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def check_form(page: str) -> int:
    """See that elements close in order and that each plot is XML by itself; return their count."""
    reader = read(page)
    assert page.startswith("<!DOCTYPE html>")
    assert len(set(reader.identities)) == len(reader.identities)
    found = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for svg in found:
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert all("image" not in element.tag for element in root.iter())
        used = set(re.findall(r"#([\w-]+)", svg))
        assert used == {element.get("id") for element in root.iter()} - {None}
    return len(found)


def check_needs_nothing(page: str) -> None:
    """See that there is no script, that nothing is fetched, and that nothing could be."""
    reader = read(page)
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(reader.seen)
    for name, value in reader.values:
        assert not name.startswith("on")
        assert name not in {"src", "srcset", "action", "data"}
        assert name != "href" or value.startswith("#")
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\((?!#)", page)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in reader.values


def check_colours(page: str) -> None:
    """See that plots have no colour of their own, and that each theme has every one they use."""
    body = page[page.index("</style>") :]
    assert re.findall(r"(?:fill|stroke): ?#\w+", body) == []
    named = set(re.findall(r"var\((--\w+)\)", page))
    for theme in ("(prefers-color-scheme: dark)", "print"):
        block = page[page.index(f"@media {theme}") :].split("\n}\n", 1)[0]
        assert named <= set(re.findall(r"(--\w+):", block)), theme
