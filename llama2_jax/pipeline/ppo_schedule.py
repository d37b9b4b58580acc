"""How PPO's settings hang together, and whether they leave the policy anything to learn, before anything runs."""

from ml_collections import ConfigDict


def has_critic(config: ConfigDict) -> bool:
    """Returns whether a critic estimates the advantages, and not the other answers to a prompt."""
    return config.advantages == "critic"


def critic_warmup(config: ConfigDict) -> int:
    """Returns how many iterations train the critic alone."""
    return config.critic_warmup_iterations if has_critic(config) else 0


def schedule_problems(config: ConfigDict) -> list[str]:
    """Returns what is wrong with a PPO stage's iterations, batches and evaluations, each naming field, value and cure.

    Args:
      config: the stage's: advantages, iterations, evaluate_every, save_every, patience, batch_size,
        samples_per_prompt, minibatch_size, accumulation and, with a critic, critic_warmup_iterations.
    """
    problems = [
        f"{field}={config[field]}: wanted at least 1"
        for field in (
            "iterations", "evaluate_every", "save_every", "patience", "batch_size", "samples_per_prompt",
            "minibatch_size", "accumulation",
        )
        if config[field] < 1
    ]  # fmt: skip
    if critic_warmup(config) >= config.iterations:
        problems.append(
            f"critic_warmup_iterations={config.critic_warmup_iterations} with iterations={config.iterations}: the "
            "policy would take no step; raise iterations or shorten the critic's warm-up"
        )
    if config.samples_per_prompt > 1 and config.batch_size % config.samples_per_prompt:
        problems.append(
            f"samples_per_prompt={config.samples_per_prompt} must divide batch_size={config.batch_size}, which counts "
            "answers"
        )
    if not has_critic(config) and config.samples_per_prompt < 2:
        problems.append(
            f"samples_per_prompt={config.samples_per_prompt} with advantages={config.advantages!r}: an answer is "
            "compared with the others to its prompt; wanted at least 2"
        )
    return problems
