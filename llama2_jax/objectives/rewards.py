"""The reward of PPO (section 3.2.3): two reward models made one, whitened, less the distance from the first policy."""

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

        R_c = R_s   if the prompt is tagged as one that may bring an unsafe answer, or R_s < 0.15
              R_h   otherwise

    R_s and R_h are sigmoid scores, and the paper goes on with logit(R_c). The reward models' own outputs are these
    logits, as logit(sigmoid(x)) = x; going there and back would only lose precision at both ends.

    Args:
      safety_logit: the safety reward model's output, before the sigmoid.
      helpfulness_logit: the helpfulness reward model's.
      safety_prompt: whether an answer's prompt is tagged.
      threshold: of R_s, the sigmoid score. 0.15 had precision 0.89 and recall 0.55 on Meta's safety test set.
    """
    unsafe = jax.nn.sigmoid(safety_logit) < threshold
    return jnp.where(safety_prompt.astype(bool) | unsafe, safety_logit, helpfulness_logit)


def whiten(x: Float[Array, "*shape"], mask: Shaped[Array, "*shape"], shift_mean: bool = True) -> Float[Array, "*shape"]:
    """Scales x to unit variance over the entries in the mask, and to mean 0 unless told to keep the mean.

        (x - mean) / sqrt(variance + 1e-8) [+ mean]

    The paper says `whiten` and no more. Here: over the whole batch of an iteration, whose scores the caller passes
    together, before any minibatch is made; the variance divides by the count (not by the count less one); the mean is
    shifted to 0. Entries out of the mask become 0.
    """
    inside = mask.astype(bool)
    x = jnp.where(inside, x.astype(jnp.float32), 0.0)
    count = jnp.maximum(jnp.sum(inside, dtype=jnp.float32), 1.0)
    mean = jnp.sum(x) / count
    variance = jnp.sum(jnp.where(inside, jnp.square(x - mean), 0.0)) / count
    scaled = (x - mean) * jax.lax.rsqrt(variance + 1e-8)
    return jnp.where(inside, scaled if shift_mean else scaled + mean, 0.0)


def apply_missing_eos_penalty(
    score: Float[Array, "*answers"], finished: Bool[Array, "*answers"], penalty: float
) -> Float[Array, "*answers"]:
    """The whitened score, less a penalty where an answer was cut off before its EOS. Not in the paper: 0 leaves it."""
    return score - jnp.where(finished, 0.0, penalty)


def per_token_rewards(
    score: Float[Array, "answers"],
    policy_logp: Float[Array, "answers length"],
    reference_logp: Float[Array, "answers length"],
    mask: Shaped[Array, "answers length"],
    last_index: Int[Array, "answers"],
    kl_coefficient: float,
) -> Float[Array, "answers length"]:
    """The reward of each token of an answer, whose sum is R = R~_c - beta KL(policy || reference) (section 3.2.3).

        r_t = -beta (log policy(t) - log reference(t)) + [t is the last token] R~_c

    The sum over an answer's tokens of the difference of log-probabilities is an unbiased estimate of the paper's KL
    (k1, as in InstructGPT). k3, which has less variance, is not: as a reward its gradient nearly vanishes close to the
    reference. EOS is a token of the answer: it bears the score, and its share of the KL.

    Args:
      score: the whitened score of each answer.
      policy_logp: log-probabilities of the answers' tokens under the policy that sampled them.
      reference_logp: and under the frozen policy at which the round began.
      mask: the answers' tokens, EOS included.
      last_index: where in `length` an answer's last token stands: its EOS, if it has one. -1 for an empty answer.
      kl_coefficient: beta: 0.01 for 7B and 13B, 0.005 for 34B and 70B.

    Returns:
      Float32 rewards, 0 outside of the mask.
    """
    distance = kl_k1(policy_logp.astype(jnp.float32), reference_logp.astype(jnp.float32))
    distance = jnp.where(mask.astype(bool), distance, 0.0)
    is_last = jnp.arange(mask.shape[-1]) == last_index[:, None]
    return jnp.where(is_last, score.astype(jnp.float32)[:, None], 0.0) - kl_coefficient * distance
