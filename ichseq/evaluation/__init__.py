"""Evaluation: the metric, the evaluation of a fold, pictures and tables."""
