"""HTML of copied conversations as Markdown; what is no HTML stays."""

import pytest

from llama2_jax.data.html_markdown import html_to_markdown


@pytest.mark.parametrize(
    "text",
    ["a < b and b > c", "What is List<int>?", "  two  spaces\n\n\n\nkept ", "1 &lt; 2", "<think>no tag</think>", ""],
)
def test_a_text_without_tags_of_html_is_unchanged(text):
    assert html_to_markdown(text) == text


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        ("<p>One.</p><p>Two &amp; three.</p>", "One.\n\nTwo & three."),
        ("<div>a<br>b</div>", "a\nb"),
        ("<h2>Title</h2>text", "## Title\n\ntext"),
        ("<p>A <strong>bold</strong> and <em>soft</em> <code>x &lt; y</code>.</p>", "A **bold** and *soft* `x < y`."),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two"),
        ("<ol><li>one</li><li>two<ul><li>in</li></ul></li></ol>", "1. one\n2. two\n   - in"),
        ('<p>see <a href="http://x.y">this</a></p>', "see [this](http://x.y)"),
        ('<p><img alt="A fox" src="f.png"></p>', "![A fox](f.png)"),
        ("<p>Sure.</p><script>alert(1)</script><style>p {}</style>", "Sure."),
        ("<p>The type List<int> is.</p>", "The type List<int> is."),
        ("<p>a\n   b</p>", "a\nb"),
        (
            "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>",
            "| a | b |\n| --- | --- |\n| 1 | 2 |",
        ),
    ],
)
def test_what_a_page_shows_is_kept(html, markdown):
    assert html_to_markdown(html) == markdown


@pytest.mark.parametrize(
    "begin",
    ['<pre><div>python<button>Copy code</button></div><code class="hljs">', '<pre><code class="hljs language-python">'],
)
def test_code_keeps_its_white_space_and_its_language(begin):
    code = "for x in y:\n    if x &lt; 2:\n\n\n\n        <span>print</span>(x)\n"
    html = f"<p>Like so:</p>{begin}{code}</code></pre><p>Done.</p>"
    wanted = "Like so:\n\n```python\nfor x in y:\n    if x < 2:\n\n\n\n        print(x)\n```\n\nDone."
    assert html_to_markdown(html) == wanted


def test_what_is_not_closed_is_kept_too():
    assert html_to_markdown("<p>a <b>b<pre><code>x") == "a **b\n\n```\nx\n```**"
