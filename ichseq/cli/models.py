"""The commands about networks that others made: which ship, a network's card, and adding one of another kind."""

from pathlib import Path

import click

from ichseq import api
from ichseq.cli.options import PATH
from ichseq.networks.shipped import described, shipped_names


class _NameOrCommand(click.Group):
    """`models NAME` is `models show NAME`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


@click.group(cls=_NameOrCommand, invoke_without_command=True, subcommand_metavar="[NAME]")
@click.pass_context
def models(ctx: click.Context) -> None:
    """List the networks that ship with ichseq.

    With NAME, print the model card of one of them, or of hf-hub:owner/name: what it was trained on and measured on.
    """
    if ctx.invoked_subcommand is None:
        click.echo("\n\n".join(map(described, shipped_names())) or "this copy of ichseq came without any network")


@models.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the model card of a network."""
    from ichseq.networks.named import card_of_network

    click.echo(card_of_network(name))


@models.command()
@click.argument("source", type=PATH)
@click.option("-o", "--out", type=PATH, help="Folder to make; default: runs/<name>.")
def add(source: Path, out: Path | None) -> None:
    """Make an ichseq network of one that was published in another form.

    SOURCE is hf-hub:owner/name or a folder with its files. Known is the form of ianpan/ct-head-hemorrhage-detection.
    """
    done = api.add_network(source, out)
    click.echo(f"written: {done.folder}")
    for line in done.remarks:
        click.echo(line, err=True)
    click.echo(f"next: ichseq predict PATH --run {done.folder}")
