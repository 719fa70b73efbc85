"""publish: a run's model on the Hugging Face hub, or as a folder that others can load."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        name: wherever a run is named, what stands for it: hf-hub:owner/name@commit, or the folder of a dry run.
        remarks: what its author should know, a line each.
    """

    name: str
    remarks: list[str]


def publish(
    run: str | Path,
    name: str,
    *,
    licence: str | None = None,
    private: bool = False,
    dry_run: str | Path | None = None,
) -> Published:
    """Publish a run's model with its calibration and a model card; others ask it as "hf-hub:owner/name".

    The card is made of run.json, metrics.json and calibration.json. Tables, patients' hashes, logs and folders of the
    run stay here.

    Args:
        run: a run with one model, or a leaf of it; its best weights are published.
        name: owner/name on the hub. Made if it is not there; else its files are replaced, in a new commit.
        licence: as the hub calls it, such as "apache-2.0" or "mit".
        private: see that no one else may see it but whom the owner lets.
        dry_run: a folder for what would be pushed; nothing is then, and no network is needed.

    Raises:
        RunError: no such run, or several models; a folder that is taken; the hub refuses or can't be reached.
        ConfigError: no such name is possible.

    Example:
        >>> import ichseq
        >>> done = ichseq.publish("runs/first", "owner/first", licence="apache-2.0", dry_run="published")
        >>> table = ichseq.predict(done.name, "scans/stage_2_test")
        >>> sorted(path.name for path in Path("published").iterdir())
        ['README.md', 'calibration.json', 'model.json', 'weights.safetensors']
    """
    from ichseq.networks.hub import PREFIX
    from ichseq.publishing.folder import only_model, write_folder
    from ichseq.publishing.push import checked_name, push

    name, leaf = checked_name(name), only_model(Path(run))
    if dry_run is not None:
        return Published(str(dry_run), write_folder(leaf, Path(dry_run), name, licence))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "network"
        remarks = write_folder(leaf, folder, name, licence)
        return Published(f"{PREFIX}{name}@{push(folder, name, private=private)}", remarks)
