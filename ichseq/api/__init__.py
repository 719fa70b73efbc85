"""The road in Python: prepare, train, evaluate, calibrate, predict, report and publish, with the words and the defaults
of the commands, and heatmap.

Import them from `ichseq`. A command parses its options, calls the function of its name, and prints what comes back; its
defaults are read from the signatures here. What is heavy is imported inside the functions, so that help needs none of
it.
"""

from ichseq.api.add import Added, add_network
from ichseq.api.calibrate import calibrate
from ichseq.api.evaluate import Asked, Evaluation, evaluate, evaluate_asked, what_to_score
from ichseq.api.export import export
from ichseq.api.fold import Fold, as_fold
from ichseq.api.heatmap import heatmap
from ichseq.api.predict import as_ensemble, predict, predict_scans
from ichseq.api.prepare import prepare
from ichseq.api.progress import Bar, progress_bar
from ichseq.api.publish import Published, publish
from ichseq.api.report import report, report_scans
from ichseq.api.train import Stage, one_process, train, train_leaves

__all__ = [
    "Added",
    "Asked",
    "Bar",
    "Evaluation",
    "Fold",
    "Published",
    "Stage",
    "add_network",
    "as_ensemble",
    "as_fold",
    "calibrate",
    "evaluate",
    "evaluate_asked",
    "export",
    "heatmap",
    "one_process",
    "predict",
    "predict_scans",
    "prepare",
    "progress_bar",
    "publish",
    "report",
    "report_scans",
    "train",
    "train_leaves",
    "what_to_score",
]
