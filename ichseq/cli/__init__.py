"""The command line: parsing and printing only."""

import click

from ichseq import __version__
from ichseq.cli.experiments import experiment
from ichseq.cli.export import export
from ichseq.cli.group import Group
from ichseq.cli.models import models
from ichseq.cli.networks import calibrate, evaluate, predict, train
from ichseq.cli.publishing import publish
from ichseq.cli.reports import report
from ichseq.cli.scans import demo, phantom, prepare
from ichseq.cli.settings import settings
from ichseq.cli.tables import compare, ensemble, submit


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="ichseq")
def main(debug: bool) -> None:
    """Find bleeding in head CT: one network over whole series, from DICOM to probabilities."""


_ROAD = (demo, phantom, prepare, train, evaluate, calibrate, predict, report)

for command in (*_ROAD, models, publish, export, compare, ensemble, submit, experiment, settings):
    main.add_command(command)
