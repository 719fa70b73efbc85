"""Prediction tables, a row a slice: what prediction and evaluation write, and everything after them reads."""
