"""The next-token loss of pretraining and fine-tuning."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from llama2_jax.objectives.target_scores import TargetScores


def target_mask(
    loss_mask: Shaped[Array, "*rows length"], segment_ids: Int[Array, "*rows length"]
) -> Bool[Array, "*rows length"]:
    """Returns True at t if token t + 1 is predicted from t: it is in the loss mask and in the same segment.

    loss_mask marks the tokens that are targets. The first token of a segment is never one, whatever the mask says: no
    token of its segment precedes it.
    """
    next_mask = jnp.roll(loss_mask, -1, axis=-1).astype(bool)
    next_segment = jnp.roll(segment_ids, -1, axis=-1)
    has_next = jnp.arange(segment_ids.shape[-1]) < segment_ids.shape[-1] - 1
    return next_mask & (next_segment == segment_ids) & (segment_ids > 0) & has_next


def count_targets(
    loss_mask: Shaped[Array, "*rows length"], segment_ids: Int[Array, "*rows length"]
) -> Float[Array, ""]:
    """Returns how many tokens of the batch are predicted, but at least 1, as it is a denominator."""
    return jnp.maximum(jnp.sum(target_mask(loss_mask, segment_ids), dtype=jnp.float32), 1.0)


def next_token_loss(
    scores: TargetScores,
    loss_mask: Shaped[Array, "rows length"],
    segment_ids: Int[Array, "rows length"],
    denominator: Float[Array, ""],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """-sum of log p(token t + 1 | tokens up to t) over the targets, divided by the denominator (PAPER sections 2, 3.1).

    Args:
      scores: at each token, of the token that follows it in the row, at temperature 1.
      loss_mask: 1 at the tokens that are targets: all in pretraining, those of the answers in fine-tuning.
      segment_ids: 0 is padding; the last token of a segment predicts nothing.
      denominator: `count_targets` of the whole batch, of which these rows may be a microbatch: the losses of
        microbatches add up to the loss of the batch.

    Returns:
      The loss in nats a token, and metrics that add up in the same way: `accuracy`, the fraction of the targets that
      have the highest logit.
    """
    mask = target_mask(loss_mask, segment_ids)
    loss = -jnp.sum(jnp.where(mask, scores.log_probability, 0.0)) / denominator
    return loss, {"accuracy": jnp.sum(mask & scores.is_highest, dtype=jnp.float32) / denominator}
