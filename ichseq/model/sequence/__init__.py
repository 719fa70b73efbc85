"""The sequence part: what reads the embeddings of a series in order."""
