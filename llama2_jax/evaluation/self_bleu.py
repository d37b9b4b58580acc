"""How alike several answers to one prompt are: Self-BLEU (section 5.1, figure 21)."""

import statistics
from collections.abc import Sequence


def self_bleu(texts: Sequence[str]) -> float:
    """Returns the mean BLEU of each text against all the others, 0 (nothing in common) to 100 (all the same).

    BLEU is SacreBLEU's of a sentence, up to 4-grams, of short texts as many as they have (`effective_order`). The paper
    does not state the order.

    Args:
      texts: at least two.

    Raises:
      ValueError: if there are fewer.
      ImportError: without the package sacrebleu.
    """
    if len(texts) < 2:
        raise ValueError(f"Self-BLEU compares texts with each other; there is {len(texts)}")
    bleu = _bleu()
    others = ([*texts[:index], *texts[index + 1 :]] for index in range(len(texts)))
    return statistics.mean(
        bleu.sentence_score(text, list(rest)).score for text, rest in zip(texts, others, strict=True)
    )


def _bleu():
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise ImportError("Self-BLEU needs the package sacrebleu: pip install -e '.[diversity]'") from None
    return BLEU(effective_order=True)
