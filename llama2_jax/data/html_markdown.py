"""HTML to Markdown, for conversations that were copied from web pages (ShareGPT), by markdownify as in FastChat.

Only texts with tags of HTML are converted: `a < b`, or `List<int>` in a question about code, stays as it is.
"""

import re
from typing import Any

# Tags of pages with chats; a tag that is none of them is text, such as a type's parameter.
_KNOWN = (
    "a", "article", "b", "blockquote", "br", "button", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "i", "img", "li", "ol", "p", "pre", "script", "section", "span", "strong", "style", "svg", "table", "tbody", "td",
    "th", "thead", "tr", "ul",
)  # fmt: skip
# What a page shows and nobody said: buttons such as "Copy code", pictures of the interface.
_SKIPPED = ("script", "style", "svg", "button")
_TAG = re.compile(rf"</?(?:{'|'.join(_KNOWN)})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_NO_TAG = re.compile(rf"<(?!/?(?:{'|'.join(_KNOWN)})(?:\s[^<>]*)?/?>)", re.IGNORECASE)
_LANGUAGE = re.compile(r"language-([\w+#-]+)")
_LABEL = re.compile(r"[\w+#-]+")
_BLOCK = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def html_to_markdown(text: str) -> str:
    """Returns a text with its HTML as Markdown; one without tags of HTML unchanged.

    Paragraphs, headings, lists, code with its language, emphasis, links, pictures and tables are kept; scripts, styles
    and buttons are left out. A tag that HTML does not have is text.

    Raises:
      ImportError: without the package markdownify.
    """
    if not _TAG.search(text):
        return text
    parse, convert = _markdownify()
    soup = parse(_NO_TAG.sub("&lt;", text), "html.parser")
    for tag in soup(_SKIPPED):
        tag.decompose()
    for block in soup("pre"):
        _label(block)
    parts = _BLOCK.split(convert(soup).strip())
    # Spaces at the ends of lines, by which Markdown breaks them, mean something in code alone.
    return "".join(part if index % 2 else re.sub(r"[ \t]+\n", "\n", part) for index, part in enumerate(parts))


def _label(block: Any) -> None:
    """Leaves the code alone in a block, and notes its language: of a class, or of a word above the code."""
    code = block.find("code")
    if code is None:
        return
    found = _LANGUAGE.search(" ".join(code.get("class") or ()))
    content = code.get_text().strip("\n")
    code.extract()
    above = block.get_text().strip()
    block["data-language"] = found.group(1) if found else above if _LABEL.fullmatch(above) else ""
    block.string = content


def _markdownify() -> tuple[Any, Any]:
    """Returns the parser of HTML, and what converts what it parsed."""
    try:
        from bs4 import BeautifulSoup
        from markdownify import MarkdownConverter
    except ImportError:
        raise ImportError("HTML needs the package markdownify: pip install -e '.[html]'") from None
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", escape_asterisks=False, escape_underscores=False, escape_misc=False,
        code_language_callback=lambda block: block.get("data-language", ""),
    )  # fmt: skip
    return BeautifulSoup, converter.convert_soup
