"""What the kinds of request share: the parts of an answer before it is put together, and its grade after."""

import dataclasses

WRONG_REASON = 0.3  # what a supporting detail of the right form that is not true is worth


@dataclasses.dataclass(frozen=True)
class Draft:
    """The parts of an answer that depend on the request.

    Attributes:
      full: what was asked for, in full sentences.
      bare: the same, with nothing around it.
      reason: a supporting detail, a sentence.
    """

    full: str
    bare: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Grade:
    """What an answer is worth as an answer to its request.

    Attributes:
      content: share of what was asked for that is there and right, in [0, 1].
      sentence: share of the content that stands in full sentences, in [0, 1].
      reason: 1 for a supporting detail that is true, WRONG_REASON for one that is not, 0 for none.
      stray: how many sentences are none of these.
      attempted: whether there is any content, right or wrong.
    """

    content: float
    sentence: float
    reason: float
    stray: int
    attempted: bool


NOTHING = Grade(content=0.0, sentence=0.0, reason=0.0, stray=0, attempted=False)
