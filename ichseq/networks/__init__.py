"""Networks that ship with ichseq, a folder each: weights, description, checksums, model card, notices."""
