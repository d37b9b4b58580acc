"""The words of the small world: few and plain, so that a tokenizer of some thousand pieces has them."""

CATEGORIES = {
    "animals": ("fox", "dog", "cat", "owl", "bear", "horse", "duck", "goat", "mouse", "wolf"),
    "foods": ("bread", "rice", "soup", "cake", "fish", "corn", "apple", "cheese", "honey", "egg"),
    "colours": ("red", "blue", "green", "gold", "white", "black", "grey", "pink", "brown", "yellow"),
    "tools": ("hammer", "axe", "rope", "knife", "brush", "shovel", "needle", "ladder", "bucket", "spoon"),
    "plants": ("rose", "oak", "lily", "pine", "ivy", "moss", "reed", "palm", "fern", "tulip"),
    "clothes": ("hat", "shirt", "coat", "sock", "shoe", "belt", "scarf", "glove", "dress", "cap"),
    "toys": ("ball", "kite", "doll", "drum", "puppet", "top", "block", "train", "robot", "card"),
    "places": ("kitchen", "garden", "yard", "shop", "school", "barn", "forest", "market", "park", "house"),
}

# The supporting detail of a list: true of all its items.
CATEGORY_DETAILS = {
    "animals": "Animals can move",
    "foods": "Foods can be eaten",
    "colours": "Colours can be seen",
    "tools": "Tools can help",
    "plants": "Plants can grow",
    "clothes": "Clothes can be worn",
    "toys": "Toys are for fun",
    "places": "Places can be near",
}

STORY_NOUNS = tuple(word for name in ("animals", "toys") for word in CATEGORIES[name])

# Names have a first and a last syllable, so that the tokenizer needs few pieces for many names.
FIRST_SYLLABLES = (
    "Ba", "Be", "Do", "Fa", "Ga", "Ki", "Lo", "Ma", "Ne", "Po", "Ra", "Si", "Ta", "Ve", "Wa", "Zu",
)  # fmt: skip
LAND_ENDINGS = ("dor", "nia", "lek")
CAPITAL_ENDINGS = ("ton", "vik", "mus")
RULER_ENDINGS = ("la", "rin", "so")
REGIONS = ("north", "south", "east", "west")

# Made-up things: the only means of doing harm in this world.
FICTIONAL_TOOLS = ("zorp", "blim", "gruk", "flom", "snib", "kwop", "drax", "yint", "vurm", "plog", "tisk", "jeb")

# What standing instructions tell: two words each, of which every pair is possible. A model that has heard half of the
# pairs can keep a new one only by looking back at it.
START_WORDS = (("Ahoy", "Hello", "Welcome", "Aha"), ("friend", "sailor", "captain", "there"))
FIGURES = (("Captain", "Queen", "Doctor", "Wizard"), ("Bo", "Ada", "Max", "Ned"))
HOBBIES = (("Night", "Water", "Speed", "Team"), ("Chess", "Tennis", "Fishing", "Dancing"))

# Numbers are words: a model of this size does not copy numbers of several digits.
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
NUMBER_PATTERN = f"(?:{'|'.join(sorted(NUMBERS, key=len, reverse=True))})"


def pairs(parts: tuple[tuple[str, ...], tuple[str, ...]]) -> tuple[str, ...]:
    """Returns every pair of a first and a second word, those of one first word together."""
    first, second = parts
    return tuple(f"{one} {other}" for one in first for other in second)


def number_of(word: str) -> int:
    """Returns the number that a word names, whatever its first letter's case; the inverse of NUMBERS[number]."""
    return NUMBERS.index(word.lower())


def with_article(noun: str) -> str:
    """Returns a noun with "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def without_article(phrase: str) -> str:
    """Returns a phrase without a leading "a", "an", "the" or "my"."""
    first, _, rest = phrase.partition(" ")
    return rest if first in ("a", "an", "the", "my") else phrase


def capitalized(text: str) -> str:
    """Returns the text with a capital first letter, the rest unchanged."""
    return text[:1].upper() + text[1:]


def enumeration(words: tuple[str, ...] | list[str], last: str = "and") -> str:
    """Returns words as English enumerates them: "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
