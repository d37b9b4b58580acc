"""Generated lines of mixed text: prose, code, numbers, scripts, emoji, control characters and odd whitespace."""

import random

PROSE = """the of and to in is that it was for on are with his they this have from or had by word but what some we can
out other were all there when use your how said an each which she do their time if will way about many then them write
would like so these her long make thing see him two has look more day could go come did number sound no most people my
over know water than call first who may down side been now find Transformer attention gradient café naïve résumé Zürich
coöperate tokenization unbelievably antidisestablishmentarianism e-mail don't it's O'Neill U.S.A. Ph.D. iPhone LaTeX"""

CODE = r"""def f(x):
    return x**2
for (int i = 0; i < n; ++i) {
        }
if a != b and not c:
    self._cache[key] = value
import numpy as np
x += 1;
// slow, see above
/* comment */
#include <stdio.h>
SELECT * FROM t WHERE id = 42;
lambda x, *args, **kwargs: None
"string\n" 'it\'s'
<div class="a b"></div>
{"key": [1, 2.5, null]}
0xDEADBEEF 1e-5
std::vector<int> v;
fn main() -> Result<(), Box<dyn Error>> {
$HOME/bin
git commit -m "x" && a || b | c
~!@#$%^&*()
snake_case_name camelCaseName SCREAMING_SNAKE
http://example.com/a?b=c&d=%20#e
C:\Windows\System32
== != <= >= => -> ..."""

SCRIPTS = """Привет мир
你好世界
こんにちは
안녕하세요
مرحبا بالعالم
שלום עולם
नमस्ते दुनिया
สวัสดีชาวโลก
γειά σου
Việt Nam
Straße İstanbul
ﬁne ﬂow
①②③ ½ ⅓ ª º
ℌ𝔢𝔩𝔩𝔬
Ｆｕｌｌｗｉｄｔｈ
꧁꧂ 𓀀𓁐
∑∫√∞≠ →⇒↔ ─│┌"""

EMOJI = (
    "😀", "🤷🏽\u200d♀️", "👩\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "🇩🇪", "❤️", "1️⃣", "🧑🏿\u200d🚀", "🫠", "☕", "👍🏻",
)  # fmt: skip
SPACES = (
    " ", " ", "  ", "   ", "        ", "\t", "\t\t", "\n", "\r\n", "\n\n", "\u00a0", "\u2003", "\u2009", "\u200b",
    "\u3000", "\ufeff", "\v", "\f", " \t ", "\u2028",
)  # fmt: skip
ODD = (
    "\x00", "\x01", "\x07", "\x1b[31m", "\x7f", "\x85", "\u202e", "\u200d", "\ufffd", "\U0010ffff", "\ue000", "e\u0301",
    "\u0041\u030a", "\u0300",
)  # fmt: skip
# All characters but surrogates and U+2581, by which SentencePiece writes a space.
CHARACTERS = ((0x20, 0x2581), (0x2582, 0xD800), (0xE000, 0x110000))


def odd_lines(count: int, seed: int = 0) -> list[str]:
    """Lines of 1 to 25 parts, with nothing, a space or whitespace of any other kind after each; some begin with it."""
    draw = random.Random(seed)
    return [
        draw.choice(("", "", "", draw.choice(SPACES)))
        + "".join(_part(draw) + _gap(draw) for _ in range(draw.randint(1, 25)))
        for _ in range(count)
    ]


def _part(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.45:
        word = draw.choice(PROSE.split())
        return draw.choice((word, word, word.upper(), word.capitalize(), word + draw.choice(".,;:!?…—)")))
    if kind < 0.6:
        return draw.choice(CODE.splitlines())
    if kind < 0.7:
        return draw.choice((str(draw.randrange(10**6)), f"{draw.uniform(-1e6, 1e6):,.3f}", "²³", "٣٤٥"))
    if kind < 0.8:
        return draw.choice(SCRIPTS.splitlines())
    if kind < 0.9:
        return draw.choice(EMOJI)
    if kind < 0.93:
        return draw.choice(ODD)
    if kind < 0.96:
        return draw.choice("aA0.-=_ \n") * draw.randint(2, 40)
    return "".join(chr(draw.randrange(*draw.choice(CHARACTERS))) for _ in range(draw.randint(1, 6)))


def _gap(draw: random.Random) -> str:
    kind = draw.random()
    return "" if kind < 0.15 else " " if kind < 0.7 else draw.choice(SPACES)
