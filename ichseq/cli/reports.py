"""The command that makes pages of a table of predictions; what is heavy is imported inside it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ichseq import api
from ichseq.cli.group import progress_bar
from ichseq.cli.networks import PARTLY
from ichseq.cli.options import PATH, SHOW_ID, default_of
from ichseq.networks.shipped import DEFAULT

if TYPE_CHECKING:
    from ichseq.ct.order import Order


@click.command()
@click.argument("table", type=PATH)
@click.option("--scans", type=PATH, multiple=True, required=True, help="That were predicted; may be repeated.")
@click.option("-o", "--out", type=PATH, default=default_of(api.report, "out"), show_default=True, help="Its folder.")
@click.option("--run", "runs", type=PATH, multiple=True, help=f"What answered, for heat maps; default: {DEFAULT}.")
@click.option(
    "--order",
    type=click.Choice(["position", "instance", "file"]),
    default=default_of(api.report, "order"),
    show_default=True,
    help="Of the slices, as they were predicted.",
)
@SHOW_ID
@click.option("--salt-file", type=PATH, help="Of a table with pseudonyms: their salt.")
@click.pass_context
def report(
    ctx: click.Context,
    table: Path,
    scans: tuple[Path, ...],
    out: Path,
    runs: tuple[Path, ...],
    order: "Order",
    show_id: bool,
    salt_file: Path | None,
) -> None:
    """Make pages for those who read scans.

    TABLE is what `ichseq predict` wrote; the table of exams beside it is read too. Exit code: 0 every exam is shown
    with its scan, 1 nothing (an error), 3 some without.
    """
    page, remarks, whole = api.report_scans(
        table, scans, out, model=runs or None, order=order, show_id=show_id, salt_file=salt_file, progress=progress_bar
    )
    click.echo(f"report: {page}")
    for line in remarks:
        click.echo(line, err=True)
    if not whole:
        ctx.exit(PARTLY)
