"""Data: prepared sets (index, folds, store), batches of whole series, augmentation."""
