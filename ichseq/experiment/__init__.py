"""Experiments: several systems on the same patients, and what each of them cost."""
