"""`python -m ichseq`, and `torchrun -m ichseq` for several processes: the command line."""

from ichseq.cli import main

main(prog_name="ichseq")
