"""HTML to Markdown, for conversations that were copied from web pages (ShareGPT).

Only texts with tags of HTML are converted: `a < b`, or `List<int>` in a question about code, stays as it is.
"""

import re
from html.parser import HTMLParser

_INLINE = {"strong": "**", "b": "**", "em": "*", "i": "*"}
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_BLOCKS = ("p", "div", "blockquote", "table", "section", "article")
_LISTS = ("ul", "ol")
# What a page shows and nobody said: buttons such as "Copy code", pictures of the interface.
_SKIPPED = ("script", "style", "svg", "button")
_KNOWN = (
    *_INLINE, *_HEADINGS, *_BLOCKS, *_LISTS, *_SKIPPED, "br", "hr", "li", "code", "pre", "a", "img", "span", "tr", "td",
    "th", "thead", "tbody",
)  # fmt: skip
_TAG = re.compile(rf"</?(?:{'|'.join(_KNOWN)})(?:\s[^<>]*)?/?>", re.IGNORECASE)


def html_to_markdown(text: str) -> str:
    """Returns a text with its HTML as Markdown; one without tags of HTML unchanged.

    Paragraphs, headings, lists, code with its language, emphasis, links, pictures and tables are kept; scripts, styles
    and buttons are left out. A tag that HTML does not have is text.
    """
    if not _TAG.search(text):
        return text
    parser = _Markdown()
    parser.feed(text)
    parser.close()
    return parser.markdown()


class _Markdown(HTMLParser):
    """Collects Markdown as it is fed HTML; code is kept apart, so that its white space stays."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._code: list[str] = []  # the texts of code blocks, for which the parts have a mark
        self._lists: list[int | None] = []  # of each open list the last number; None if it has none
        self._links: list[str] = []
        self._rows = self._cells = 0  # of the open table, and of its last row
        self._skipped = 0
        self._pre: list[str] | None = None  # the parts of the open code block
        self._language = ""
        self._in_code = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attributes}
        if tag in _SKIPPED:
            self._skipped += 1
        elif tag == "pre":
            self._pre, self._language = [], ""
        elif tag == "code":
            self._begin_code(named)
        elif tag in _LISTS:
            self._lists.append(0 if tag == "ol" else None)
            self._add("\n")
        elif tag == "li":
            self._begin_item()
        elif tag == "a":
            self._links.append(named.get("href", ""))
            self._add("[")
        elif tag == "img":
            self._add(f"![{named.get('alt', '')}]({named.get('src', '')})")
        elif tag not in _KNOWN:
            self.handle_data(self.get_starttag_text() or "")
        else:
            self._add(self._opening(tag))

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        elif tag == "pre" and self._pre is not None:
            self._end_block()
        elif tag == "code":
            self._in_code = False
            self._add("`" if self._pre is None else "")
        elif tag in _LISTS and self._lists:
            self._lists.pop()
            self._add("\n" if self._lists else "\n\n")
        elif tag == "a" and self._links:
            self._add(f"]({self._links.pop()})")
        elif tag in ("td", "th"):
            self._add(" |")
        elif tag == "tr":
            self._end_row()
        elif tag not in _KNOWN:
            self.handle_data(f"</{tag}>")
        else:
            self._add("\n\n" if tag in (*_BLOCKS, *_HEADINGS) else _INLINE.get(tag, ""))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("br", "hr", "img") or tag not in _KNOWN:
            self.handle_starttag(tag, attributes)

    def handle_data(self, data: str) -> None:
        if self._skipped:
            return
        if self._pre is None:
            self._add(data if self._in_code else re.sub(r"\s+", " ", data))
        elif self._in_code:
            self._pre.append(data)
        elif data.strip():
            self._label_or_code(data)

    def markdown(self) -> str:
        """Returns what was collected."""
        if self._pre is not None:
            self._end_block()
        text = re.sub(r"[ \t]*\n[ \t]*(?! *(?:[-*]|\d+\.) )", "\n", "".join(self._parts))
        text = re.sub(r"\n{3,}", "\n\n", text).strip()
        return re.sub("\x00(\\d+)\x00", lambda mark: self._code[int(mark.group(1))], text)

    def _add(self, text: str) -> None:
        if not self._skipped:
            self._parts.append(text)

    def _opening(self, tag: str) -> str:
        if tag in _HEADINGS:
            return f"\n\n{_HEADINGS[tag]} "
        if tag == "table":
            self._rows = 0
        if tag == "tr":
            self._cells = 0
            return "\n|"
        if tag in ("td", "th"):
            self._cells += 1
            return " "
        return {"br": "\n", "hr": "\n\n---\n\n", "blockquote": "\n\n> "}.get(
            tag, "\n\n" if tag in _BLOCKS else _INLINE.get(tag, "")
        )

    def _begin_item(self) -> None:
        indent = "  " * max(0, len(self._lists) - 1)
        if self._lists and self._lists[-1] is not None:
            self._lists[-1] += 1
            self._add(f"\n{indent}{self._lists[-1]}. ")
        else:
            self._add(f"\n{indent}- ")

    def _begin_code(self, named: dict[str, str]) -> None:
        self._in_code = True
        if self._pre is None:
            self._add("`")
        elif found := re.search(r"language-([\w+#-]+)", named.get("class", "")):
            self._language = found.group(1)

    def _label_or_code(self, data: str) -> None:
        """In a block, what is before the code names its language; a block without a tag for code is all code."""
        if re.fullmatch(r"\s*[\w+#-]+\s*", data) and not self._pre and not self._language:
            self._language = data.strip()
        else:
            self._pre.append(data)

    def _end_block(self) -> None:
        code = "".join(self._pre).strip("\n")
        self._pre = None
        self._add(f"\n\n\x00{len(self._code)}\x00\n\n")
        self._code.append(f"```{self._language}\n{code}\n```")

    def _end_row(self) -> None:
        self._rows += 1
        # Markdown wants a line under the first row of a table.
        self._add(f"\n|{' --- |' * self._cells}" if self._rows == 1 else "")
