"""The command that publishes a network; heavy imports stand inside."""

from pathlib import Path

import click

from ichseq import api
from ichseq.cli.options import PATH


@click.command()
@click.argument("run", type=PATH)
@click.argument("name")
@click.option("--licence", help="As the hub calls it, such as apache-2.0 or mit.")
@click.option("--private", is_flag=True, help="See that no one else may see it but whom the owner lets.")
@click.option("--dry-run", type=PATH, help="Write into this folder what would be pushed, and push nothing.")
def publish(run: Path, name: str, licence: str | None, private: bool, dry_run: Path | None) -> None:
    """Publish a network on the Hugging Face hub, with its model card.

    RUN is runs/NAME or a leaf of it, NAME owner/name on the hub. Others then ask it: --run hf-hub:owner/name.
    """
    done = api.publish(run, name, licence=licence, private=private, dry_run=dry_run)
    click.echo(f"{'written, not pushed' if dry_run else 'published'}: {done.name}")
    for line in done.remarks:
        click.echo(line, err=True)
    click.echo(f"next: ichseq predict PATH --run {done.name}")
