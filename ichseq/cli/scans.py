"""Commands that make or read scans: demo, phantom, prepare. What is heavy is imported inside each command."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ichseq import api
from ichseq.cli.group import progress_bar
from ichseq.cli.options import PATH, PSEUDONYMISE, SALT_FILE, SCHEDULER, HuRange, default_of
from ichseq.phantom.choices import DEFAULT_HEADS, DONOR_SHARE, HEADS
from ichseq.seeds import DEFAULT_SEED
from ichseq.windows import BONE_RANGE

if TYPE_CHECKING:
    from ichseq.data.label_files import ExamSeries


@click.command()
@click.option("-o", "--out", type=PATH, default="demo", show_default=True, help="Folder for everything it makes.")
def demo(out: Path) -> None:
    """Train a small network on made-up scans, show what it finds."""
    from ichseq.demo import run_demo

    run_demo(out, bar=progress_bar, echo=click.echo)


@click.command()
@click.argument("out", type=PATH)
@click.option("--patients", default=60, show_default=True, help="Patients with labels.")
@click.option("--test-patients", default=10, show_default=True, help="Patients of the test part.")
@click.option("--size", default=512, show_default=True, help="Rows and columns of a slice.")
@click.option("--seed", default=DEFAULT_SEED, show_default=True, help="The same seed gives the same bytes.")
@click.option("--donor", "donors", type=PATH, multiple=True, help="Head CT without bleeding to make exams of as well.")
@click.option(
    "--donor-share", default=DONOR_SHARE, show_default=True, help="Share of the exams that donors' heads are made into."
)
@click.option(
    "--heads",
    type=click.Choice(list(HEADS)),
    default=DEFAULT_HEADS,
    show_default=True,
    help="Heads that are no donor's: of formulas, drawn from tissue maps of real brains, or half of each.",
)
@click.option("--workers", type=int, help="Processes; default: as many as there are cores.")
def phantom(
    out: Path,
    patients: int,
    test_patients: int,
    size: int,
    seed: int,
    donors: tuple[Path, ...],
    donor_share: float,
    heads: str,
    workers: int | None,
) -> None:
    """Make up head CT with bleeding, as DICOM.

    Its folders are those of the RSNA 2019 set.

    With --donor, which may be given more than once, heads from real scans are deformed and bled into as well: a
    training set from one's own scans without bleeding, without labels. Slices that a label table in the donor's
    folder (stage_2_train.csv) calls bleeding stay so.
    """
    from ichseq.phantom import write_phantoms

    with progress_bar("phantoms", "patients") as progress:
        write_phantoms(
            out,
            patients=patients,
            test_patients=test_patients,
            size=size,
            seed=seed,
            workers=workers,
            donors=donors,
            donor_share=donor_share,
            heads=heads,
            progress=progress,
        )
    click.echo(f"{patients} + {test_patients} made-up patients in {out}; next: ichseq prepare {out}")


@click.command()
@click.argument("source", type=PATH)
@click.option(
    "-o", "--out", type=PATH, default=default_of(api.prepare, "out"), show_default=True, help="The prepared set."
)
@click.option(
    "--labels",
    type=PATH,
    multiple=True,
    help="Label table, of slices or exams; may be repeated. Default: stage_2_train.csv in the source, if there.",
)
@click.option(
    "--exam-series",
    type=click.Choice(["all", "thin", "thick"]),
    default=default_of(api.prepare, "exam_series"),
    show_default=True,
    help="Which of several series of an exam have its labels: the one with the most slices, or the fewest, or all.",
)
@click.option(
    "--folds", default=default_of(api.prepare, "folds"), show_default=True, help="Number of folds, by patient."
)
@click.option("--seed", default=default_of(api.prepare, "seed"), show_default=True, help="Seed of the folds.")
@click.option(
    "--hu-range",
    type=HuRange(),
    default=default_of(api.prepare, "hu_range"),
    show_default="-200,823",
    help="Hounsfield units that are kept; the others are clipped.",
)
@click.option("--bone", is_flag=True, help="The same as --hu-range -1024,3071, which the window bone needs.")
@click.option("--workers", type=int, help="Processes; default: as many as there are cores.")
@SCHEDULER
@PSEUDONYMISE
@SALT_FILE
def prepare(
    source: Path,
    out: Path,
    labels: tuple[Path, ...],
    exam_series: "ExamSeries",
    folds: int,
    seed: int,
    hu_range: tuple[int, int],
    bone: bool,
    workers: int | None,
    scheduler: str | None,
    pseudonymise: bool,
    salt_file: Path | None,
) -> None:
    """Read DICOM files once into a set to train on. Run again, it does what is missing."""
    summary = api.prepare(
        source,
        out,
        labels=labels,
        exam_series=exam_series,
        folds=folds,
        seed=seed,
        hu_range=BONE_RANGE if bone else hu_range,
        workers=workers,
        scheduler=scheduler,
        pseudonymise=pseudonymise,
        salt_file=salt_file,
        progress=progress_bar,
    )
    click.echo(summary.text())
