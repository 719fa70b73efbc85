"""A folder of experiments as one Markdown file: what each of them reached, what it cost, and whether it is better."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ichseq.errors import ConfigError, DataError, counted
from ichseq.evaluation.compare import paired_difference_of_seeds
from ichseq.evaluation.report import figure_of, interval_text, markdown_table, number_text
from ichseq.files import write_text
from ichseq.labels import LABELS
from ichseq.runs.experiments import ExperimentResult, Measured, read_results
from ichseq.runs.log import commit, versions
from ichseq.runs.names import folds_text

_HEAD: Final = (
    "Experiment",
    "Weighted log loss",
    "95% interval",
    "Ratio to prior",
    *(f"AUC {label}" for label in LABELS),
    "Exam AUC",
    "Passes",
    "Slices trained",
    "Slices embedded",
    "Steps",
    "Seconds",
    "Recipe",
)
_PAIRED_HEAD: Final = ("Experiment", "Seeds", "Difference", "95% interval", "Ratio", "95% interval")
_PAIRED_NOTE: Final = (
    "Weighted log loss of each less that of the reference, and the one over the other: below 0, and below 1, an "
    "experiment is better. The bootstrap draws the same patients for both. Seeds: of each and of the reference; of "
    "several the mean is compared, and they are drawn too."
)
_NOTE: Final = (
    "Sorted by weighted log loss. Its interval is a bootstrap over patients. AUC: of slices, by label; exam AUC: of "
    "exams, by the highest p(any) of their slices. Passes: over the training data, all stages together, mean of the "
    "folds. The rest is the sum of all stages and folds: slices trained went forward and backward through the CNN, "
    "slices embedded forward alone, without gradient; steps are the optimizer's. "
    "Recipe: hash of the settings of all stages, seed aside."
)


def write_results(
    folder: Path, out: Path, *, reference: str | None = None, command: str = "", machine: str = ""
) -> None:
    """Write the experiments of a folder as a Markdown file: a table of figures and costs, a row an experiment.

    Experiments of another data set, of other folds or of another number of slices than most are no part of the table;
    they are listed below it.

    Args:
        folder: holds a folder for each experiment; files in it and names that begin with a dot are passed over.
        out: the file; what was there is replaced once the new one is whole.
        reference: experiment that each of the others is compared with, patient by patient.
        command: that made the results, for the reader.
        machine: on which they were made.

    Raises:
        DataError: there is no experiment, one of its files is missing or damaged, or `out` can't be written.
        ConfigError: the reference is no experiment of the folder, or no part of the table.
    """
    every = read_results(folder)
    shared = _most_frequent(every, reference)
    kept = sorted((one for one in every if one.measured_on == shared), key=lambda one: (one.loss, one.name))
    compared_with = _named(reference, every, shared, folder)
    for one in every:
        if compared_with is None or one not in kept:
            one.table()  # read to be checked: a damaged one must not pass for a whole one
    parts = [
        "# Experiments on the same patients: what each system reached on folds that it never saw, and what it cost",
        *_facts(kept, command, machine),
        markdown_table(_HEAD, [_row(one) for one in kept]),
        _NOTE,
    ]
    if any(one.metrics["quick"] for one in kept):
        parts.append("Quick: a trial with less training, which tells whether it runs and not how good it is.")
    if compared_with is not None:
        parts += _comparison(kept, compared_with)
    left_out = [f"- {_cell(one.name)}: {one.measured_on.unlike(shared)}" for one in every if one not in kept]
    if left_out:
        parts += ["## Left out", "\n".join(left_out)]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, "\n\n".join(parts) + "\n")
    except OSError as error:
        raise DataError(f"{out}: can't be written ({error.strerror}); name another file") from None


def _most_frequent(every: Sequence[ExperimentResult], reference: str | None) -> Measured:
    """What most experiments were measured on; of equally many, what the reference was, or the first by name."""
    often = Counter(one.measured_on for one in every)
    of_reference = [one.measured_on for one in every if reference in (one.name, one.system)]
    return max([*of_reference, *often], key=lambda one: often[one])  # max takes the first of equals


def _named(
    name: str | None, every: Sequence[ExperimentResult], shared: Measured, folder: Path
) -> ExperimentResult | None:
    if name is None:
        return None
    named = [one for one in every if name in (one.name, one.system)]
    if not named:
        names = ", ".join(one.name for one in every)
        raise ConfigError(f"reference {name}: no such experiment in {folder}; there are {names}")
    if named[0].measured_on != shared:
        why = named[0].measured_on.unlike(shared)
        raise ConfigError(f"reference {name}: was measured on something else than most ({why}); name another")
    return named[0]


def _facts(kept: Sequence[ExperimentResult], command: str, machine: str) -> list[str]:
    """What was run, where, and on what; what is not known is left out."""
    of = kept[0].metrics
    with_versions = ", ".join(f"{name} {version}" for name, version in versions().items())
    slices, exams, patients = (counted(of[f"n_{word}s"], word) for word in ("slice", "exam", "patient"))
    folds, elsewhere = folds_text(of["folds"]), of.get("trained_on", of["data_key"]) != of["data_key"]
    facts = {
        "Commit": commit(),
        "Machine": machine,
        "Versions": with_versions,
        "Data set": f"{of['data_key']}, {of['data_series']:,} series",
        "Phantoms": f"made by the generator {of['generator']}" if "generator" in of else "",
        "Trained on": f"{of['trained_on']}, all but {folds}" if elsewhere else "",
        "Scored": f"{'all of it' if elsewhere else folds}: {slices}, {exams}, {patients}",
    }
    lines = "\n".join(f"- {name}: {text}" for name, text in facts.items() if text)
    return [f"    {command}", lines] if command else [lines]


def _row(one: ExperimentResult) -> tuple[str, ...]:
    figures = ("ratio_to_prior", *(f"labels.{label}.auc" for label in LABELS), "exam.auc_any")
    return (
        _cell(one.name) + " (quick)" * one.metrics["quick"],
        number_text(one.loss),
        interval_text(one.metrics["intervals"].get("weighted_log_loss")) or "-",
        *(number_text(figure_of(one.metrics, figure)) for figure in figures),
        *_costs(one),
        one.metrics.get("recipe", "-"),
    )


def _costs(one: ExperimentResult) -> list[str]:
    """Passes, slices trained, slices embedded, steps, seconds; dashes if nothing was trained, as for a blend."""
    if not one.stages:
        return ["-"] * 5
    passes, seconds = (sum(stage[name] for stage in one.stages) for name in ("passes", "seconds"))
    whole = [f"{sum(stage[name] for stage in one.stages):,}" for name in ("slices", "embedded_slices", "steps")]
    return [f"{passes / len(one.measured_on.folds):.1f}", *whole, f"{seconds:,.0f}"]


def _comparison(kept: Sequence[ExperimentResult], reference: ExperimentResult) -> list[str]:
    """The section that compares each system with the reference's; several seeds of one are taken together."""
    systems: dict[str, list[ExperimentResult]] = {}
    for one in kept:
        systems.setdefault(one.system, []).append(one)
    with_tables = [one.table() for one in systems.pop(reference.system)]
    rows = []
    for name, seeds in systems.items():
        where = (str(seeds[0].folder), str(reference.folder))
        found = paired_difference_of_seeds([one.table() for one in seeds], with_tables, names=where)
        difference, ratio = (interval_text(found["intervals"][key]) or "-" for key in ("difference", "ratio"))
        figures = number_text(found["difference"]), difference, number_text(found["ratio"]), ratio
        rows.append((_cell(name), f"{len(seeds)}, {len(with_tables)}", *figures))
    if not rows:
        return []
    return [f"## Compared with {_cell(reference.system)}", markdown_table(_PAIRED_HEAD, rows), _PAIRED_NOTE]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
