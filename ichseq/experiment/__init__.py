"""Experiments: a file states the stages, bags, views, smoothing and blend of a system, and is run from start to end."""
