"""The command that exports a network; what is heavy is imported inside it."""

from pathlib import Path

import click

from ichseq import api
from ichseq.cli.options import PATH, default_of


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "-o",
    "--out",
    type=PATH,
    default=default_of(api.export, "out"),
    show_default=True,
    help="NAME.onnx for onnxruntime and others, NAME.pt2 for torch.export.",
)
def export(run: Path, out: Path) -> None:
    """Write a trained network for other runtimes.

    RUN is runs/NAME, a leaf of it or the name of a network that ships. Two graphs: slices in Hounsfield units to
    embeddings, the embeddings of a series to logits.
    """
    from ichseq.exported.description import ONNX

    description = api.export(run, out)
    click.echo(f"written: {out}, {out.stem}.series{out.suffix}, {description.name}")
    if out.suffix == ONNX:
        click.echo(f"next: ichseq predict PATH --run {out}")
