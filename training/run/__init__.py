"""A training run: steps, checkpoints, several processes, what is said of it."""
