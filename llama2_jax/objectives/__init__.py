"""Objectives as pure functions of arrays: next token, ranking, rewards, advantages, PPO."""
