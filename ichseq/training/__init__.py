"""Training: what a stage trains, the one loop, losses, checkpoints."""
