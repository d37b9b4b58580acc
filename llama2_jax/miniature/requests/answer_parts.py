"""What the kinds of request share: the parts from which an answer is made, and its grade."""

import dataclasses

WRONG_REASON = 0.3  # the value of a supporting detail that has the right form but is not true


@dataclasses.dataclass(frozen=True)
class Draft:
    """The parts of an answer that depend on the request.

    Attributes:
      full: the content asked for, in full sentences.
      bare: the same, without full sentences.
      reason: a supporting detail, a sentence.
      careful: the content in a form that keeps count, in full sentences; always right. "" if the kind has none.
    """

    full: str
    bare: str
    reason: str
    careful: str = ""


@dataclasses.dataclass(frozen=True)
class Grade:
    """The value of an answer to its request.

    Attributes:
      content: share of the content asked for that is present and right, in [0, 1].
      sentence: share of the content in full sentences, in [0, 1].
      reason: 1 for a supporting detail that is true, WRONG_REASON for one that is not, 0 for none.
      stray: number of other sentences.
      attempted: whether there is any content, right or wrong.
    """

    content: float
    sentence: float
    reason: float
    stray: int
    attempted: bool


NOTHING = Grade(content=0.0, sentence=0.0, reason=0.0, stray=0, attempted=False)
