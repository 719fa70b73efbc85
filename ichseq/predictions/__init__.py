"""Prediction tables, a row a slice: their columns, reading, writing, checks, blending, smoothing, submission."""
