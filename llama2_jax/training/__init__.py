"""State, step, loop, optimizer, checkpoints, metrics: knows no stage."""
