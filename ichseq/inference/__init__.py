"""Inference: prediction tables from a trained model."""
