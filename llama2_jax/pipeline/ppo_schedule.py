"""Whether PPO's settings leave the policy anything to learn, checked before anything runs."""

from ml_collections import ConfigDict


def schedule_problems(config: ConfigDict) -> list[str]:
    """Returns what is wrong with a PPO stage's iterations, warm-up and evaluations, each naming field, value and cure.

    Args:
      config: the stage's: iterations, critic_warmup_iterations, evaluate_every, save_every, patience, batch_size,
        minibatch_size and accumulation.
    """
    problems = [
        f"{field}={config[field]}: wanted at least 1"
        for field in (
            "iterations", "evaluate_every", "save_every", "patience", "batch_size", "minibatch_size", "accumulation",
        )
        if config[field] < 1
    ]  # fmt: skip
    if config.critic_warmup_iterations >= config.iterations:
        problems.append(
            f"critic_warmup_iterations={config.critic_warmup_iterations} with iterations={config.iterations}: the "
            "policy would take no step; raise iterations or shorten the critic's warm-up"
        )
    return problems
