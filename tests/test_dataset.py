"""The prepared set as a torch Dataset: the network sees what the package's own reader gives it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_files import ct_dataset, dicom_bytes
from torch.utils.data import DataLoader

from ichseq.data.batches import Item, read_batch
from ichseq.data.dataset import SeriesDataset, collate
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import ConfigError
from ichseq.model import Model


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients, no two images of one size, one without labels."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = ["sop_uid,epidural,intraparenchymal,intraventricular,subarachnoid,subdural,any"]
    for patient in range(6):
        for number in range(3 + patient):
            rng = np.random.default_rng([patient, number])
            pixels = rng.integers(900, 1200, (40 + 8 * patient, 64 - 4 * patient)).astype(np.int16)
            uids = {
                "PatientID": f"P{patient}",
                "StudyInstanceUID": f"1.{patient}",
                "SeriesInstanceUID": f"1.{patient}.1",
            }
            sop = f"1.{patient}.1.{number}"
            dataset = ct_dataset(pixels, number=number + 1, SOPInstanceUID=sop, **uids)
            (folder / "raw" / uids["PatientID"]).mkdir(parents=True, exist_ok=True)
            (folder / "raw" / uids["PatientID"] / f"{number}").write_bytes(dicom_bytes(dataset))
            rows += [f"{sop},0,{number % 2},0,0,,{number % 2}"] * (patient != 5)
    (folder / "labels.csv").write_text("\n".join(rows))
    prepare(folder / "raw", folder / "set", labels=folder / "labels.csv", folds=3, workers=1)
    return folder / "set"


@pytest.mark.parametrize("workers", [0, 2])
def test_logits_are_those_of_the_own_reader(mixed: Path, workers: int) -> None:
    torch.manual_seed(0)
    model = Model("test_resnet", image_size=32, hidden_size=8, sequence="transformer").eval()
    index, data = Index.load(mixed), SeriesDataset(mixed)
    loader = DataLoader(data, batch_size=4, collate_fn=collate, num_workers=workers)
    seen = 0
    for batch in loader:
        items = [Item(seen + k) for k in range(len(batch.lengths))]
        own = read_batch(index, items)
        with torch.inference_mode():
            logits = model(batch.hu, batch.lengths, sizes=batch.sizes, positions_mm=batch.positions_mm).logits
            expected = model(own.hu, own.lengths, sizes=own.sizes, positions_mm=own.positions_mm).logits
        assert torch.equal(logits, expected)
        assert torch.equal(batch.labels.nan_to_num(7), own.labels.nan_to_num(7))
        seen += len(items)
    assert seen == index.n_series == 6
    assert len({tuple(item.hu.shape[1:]) for item in data}) == 6


def test_a_fold_parts_the_series(mixed: Path) -> None:
    everyone = [item.series_uid for item in SeriesDataset(mixed)]
    for fold in range(3):
        apart = [[item.series_uid for item in SeriesDataset(mixed, fold=fold, train=train)] for train in (True, False)]
        assert all(apart)
        assert sorted(apart[0] + apart[1]) == sorted(everyone)
    held_out = [item.patient_id for fold in range(3) for item in SeriesDataset(mixed, fold=fold, train=False)]
    assert sorted(held_out) == sorted({item.patient_id for item in SeriesDataset(mixed)})
    for fold in (3, -1):
        with pytest.raises(ConfigError, match=f"fold {fold} does not exist; this set has folds 0 to 2"):
            SeriesDataset(mixed, fold=fold)


def test_what_is_unknown_is_nan_and_what_is_padded_is_air(mixed: Path) -> None:
    items = list(SeriesDataset(Index.load(mixed)))
    unlabelled = next(item for item in items if item.patient_id == "P5")
    assert unlabelled.labels.isnan().all()
    labelled = next(item for item in items if item.patient_id == "P0")
    assert labelled.labels[:, -1].tolist() == [0, 1, 0]
    assert labelled.labels[:, 4].isnan().all()
    assert torch.allclose(labelled.positions_mm.diff(), torch.tensor(5.0))
    batch = collate([labelled, unlabelled])
    (rows, columns), first = batch.sizes[0], batch.hu[: int(batch.lengths[0])]
    assert torch.equal(first[:, :rows, :columns], labelled.hu)
    assert (first[:, rows:] == -1024).all()
    assert (first[:, :, columns:] == -1024).all()
    assert first[:, rows:].numel() > 0
    assert batch.patient_ids == ["P0", "P5"]
