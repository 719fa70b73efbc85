"""Training: the stages, what a run is set up with, the one loop, checkpoints."""
