"""The reward of PPO (section 3.2.3): two reward models combined, whitened, less a KL penalty to the initial policy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from llama2_jax.objectives.ppo import kl_k1


def combine(
    safety_logit: Float[Array, "*answers"],
    helpfulness_logit: Float[Array, "*answers"],
    safety_prompt: Shaped[Array, "*answers"],
    threshold: float = 0.15,
) -> Float[Array, "*answers"]:
    """logit(R_c) of each answer (section 3.2.3).

        R_c = R_s   if the prompt is tagged as one that may elicit an unsafe answer, or R_s < 0.15
              R_h   otherwise

    R_s and R_h are sigmoid scores, and the paper then uses logit(R_c). The reward models' outputs are these logits, as
    logit(sigmoid(x)) = x; computing the sigmoid and its inverse would only lose precision at both ends.

    Args:
      safety_logit: the safety reward model's output, before the sigmoid.
      helpfulness_logit: the helpfulness reward model's output, before the sigmoid.
      safety_prompt: whether the answer's prompt is tagged.
      threshold: on R_s, the sigmoid score. 0.15 had precision 0.89 and recall 0.55 on Meta's safety test set.
    """
    unsafe = jax.nn.sigmoid(safety_logit) < threshold
    return jnp.where(safety_prompt.astype(bool) | unsafe, safety_logit, helpfulness_logit)


def whiten_by_tag(
    score: Float[Array, " answers"], safety_prompt: Shaped[Array, " answers"]
) -> Float[Array, " answers"]:
    """Whitens the scores of tagged prompts' answers among themselves, and those of the others.

    The loss of a reward model only knows differences of scores (equation 1), so the safety scores of tagged prompts and
    the helpfulness scores of others have no common zero. Whitened together, one kind is all gain and the other all
    loss, and a critic that does not tell the prompts apart yet takes that for the worth of a refusal. Nor have two
    models, one of easy comparisons and one of hard ones, a common unit: each kind has the weight of its prompts. The
    mean and the scale of a kind depend on the prompt alone: what is best stays best. Not in the paper, which only says
    `whiten`.
    """
    tagged = safety_prompt.astype(bool)
    return whiten(score, tagged) + whiten(score, ~tagged)


def whiten(x: Float[Array, "*shape"], mask: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Shifts x to mean 0 and scales it to unit variance over the entries in the mask.

        (x - mean) / sqrt(variance + 1e-8)

    The paper says only `whiten`. Here it is over the whole batch of an iteration, whose scores the caller passes
    together, before it is split into minibatches; the variance divides by the count (not by the count less one).
    Entries outside the mask become 0.
    """
    mask = mask.astype(bool)
    x = jnp.where(mask, x.astype(jnp.float32), 0.0)
    count = jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
    mean = jnp.sum(x) / count
    variance = jnp.sum(jnp.where(mask, jnp.square(x - mean), 0.0)) / count
    return jnp.where(mask, (x - mean) * jax.lax.rsqrt(variance + 1e-8), 0.0)


def apply_missing_eos_penalty(
    score: Float[Array, "*answers"], finished: Bool[Array, "*answers"], penalty: float
) -> Float[Array, "*answers"]:
    """Subtracts a penalty from whitened scores of answers cut off before their EOS. Not in the paper; 0 disables it."""
    return score - jnp.where(finished, 0.0, penalty)


def per_token_rewards(
    score: Float[Array, " answers"],
    policy_logp: Float[Array, "answers length"],
    reference_logp: Float[Array, "answers length"],
    mask: Shaped[Array, "answers length"],
    last_index: Int[Array, " answers"],
    kl_coefficient: float,
) -> Float[Array, "answers length"]:
    """Returns each token's reward; an answer's sum is R = R~_c - beta KL(policy || reference) (section 3.2.3).

        r_t = -beta (log policy(t) - log reference(t)) + [t is the last token] R~_c

    The sum over an answer's tokens of the difference of log-probabilities is an unbiased estimate of the paper's KL
    (k1, as in InstructGPT). k3, which has lower variance, is unsuitable: as a reward its gradient nearly vanishes close
    to the reference. EOS is a token of the answer: it gets the score, and its share of the KL.

    Args:
      score: the whitened score of each answer.
      policy_logp: log-probabilities of the answers' tokens under the policy that sampled them.
      reference_logp: the same under the frozen policy from which the round started.
      mask: the answers' tokens, EOS included.
      last_index: the index of an answer's last token, its EOS if it has one; -1 for an empty answer.
      kl_coefficient: beta: 0.01 for 7B and 13B, 0.005 for 34B and 70B.

    Returns:
      Float32 rewards, 0 outside the mask.
    """
    kl = kl_k1(policy_logp.astype(jnp.float32), reference_logp.astype(jnp.float32))
    kl = jnp.where(mask.astype(bool), kl, 0.0)
    is_last = jnp.arange(mask.shape[-1]) == last_index[:, None]
    return jnp.where(is_last, score.astype(jnp.float32)[:, None], 0.0) - kl_coefficient * kl
