"""The next-token loss of pretraining and fine-tuning."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from llama2_jax.objectives.target_scores import TargetScores


def target_mask(
    loss_mask: Shaped[Array, "*rows length"], segment_ids: Int[Array, "*rows length"]
) -> Bool[Array, "*rows length"]:
    """True at t where token t + 1 is to be predicted from t: it is in the loss, and of the same segment.

    loss_mask marks tokens as targets, so the first token of a segment is never one, whatever the mask says: nothing
    of its own segment comes before it.
    """
    following_mask = jnp.roll(loss_mask, -1, axis=-1).astype(bool)
    following_segment = jnp.roll(segment_ids, -1, axis=-1)
    has_following = jnp.arange(segment_ids.shape[-1]) < segment_ids.shape[-1] - 1
    return following_mask & (following_segment == segment_ids) & (segment_ids > 0) & has_following


def count_targets(
    loss_mask: Shaped[Array, "*rows length"], segment_ids: Int[Array, "*rows length"]
) -> Float[Array, ""]:
    """How many tokens of the batch are predicted; at least 1, as it divides."""
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
      The loss in nats a token, and metrics that add up likewise: `accuracy`, the share of the targets that have the
      highest logit.
    """
    mask = target_mask(loss_mask, segment_ids)
    loss = -jnp.sum(jnp.where(mask, scores.log_probability, 0.0)) / denominator
    return loss, {"accuracy": jnp.sum(mask & scores.is_highest, dtype=jnp.float32) / denominator}
