"""A network in another form's files becomes a model with the same answers; nothing of it is lost in silence."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from hub_server import Hub
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ichseq
from ichseq import Model
from ichseq.cli import main
from ichseq.errors import RunError
from ichseq.labels import LABELS
from ichseq.model.imported import CLASSIFIER, SEQUENCE, SETTINGS, import_network
from ichseq.networks.named import descent_of, is_network

SIDE, HIDDEN, MOST = 64, 8, 6
THEIRS = ("any", "subdural", "epidural", "intraparenchymal", "intraventricular", "subarachnoid")
SLICE_SHARES, SERIES_SHARES = [1.0, 0.75, 0.5, 0.25, 0.0, 0.8], [0.5, 0.25, 0.5, 1.0, 0.75, 0.0]


class Pool(nn.Module):
    """Attention for each label over the slices of a series (T, W), and a linear answer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(width, 128), nn.Tanh(), nn.Linear(128, len(THEIRS)))
        self.classifier_weight = nn.Parameter(torch.randn(len(THEIRS), width))
        self.classifier_bias = nn.Parameter(torch.randn(len(THEIRS)))

    def forward(self, hidden: Tensor) -> Tensor:
        seen = self.attention(hidden).softmax(dim=0).T @ hidden  # (labels, W)
        return (seen * self.classifier_weight).sum(dim=1) + self.classifier_bias


class Elsewhere(nn.Module):
    """A sequence part with the names that the files have."""

    def __init__(self, features: int) -> None:
        super().__init__()
        width = 2 * HIDDEN
        self.input_norm = nn.LayerNorm(features)
        self.projection, self.projection_norm = nn.Linear(features, width), nn.LayerNorm(width)
        self.sequence = nn.GRU(width + 1, HIDDEN, 2, bidirectional=True, batch_first=True)
        self.slice_head = nn.Linear(width, len(THEIRS))
        self.sequence_pool, self.mil_pool = Pool(width), Pool(width)

    def forward(self, embeddings: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.projection_norm(nn.functional.gelu(self.projection(self.input_norm(embeddings))))
        hidden = self.sequence(torch.cat([seen, places[:, None]], dim=1)[None])[0][0]
        return self.slice_head(hidden), self.sequence_pool(hidden)


def settings() -> dict[str, Any]:
    windows = [("bone", 600, 2800), ("brain", 40, 80)]
    return {
        "model_type": "ct_head_hemorrhage_detection",
        "architecture": {"slice_classifier": "test_convnext.r160_in1k"},
        "input": {
            "height": SIDE, "width": SIDE, "large_image_resize_threshold": 80, "adjacent_slices": 3,
            "channel_order": "slice-major",
            "windows": [{"name": name, "center": centre, "width": width} for name, centre, width in windows],
            "normalization": {"input_min": 0.0, "input_max": 1.0, "output_min": -1.0, "output_max": 1.0},
        },
        "labels": list(THEIRS), "slice_blend_alphas": SLICE_SHARES, "series_blend_alphas": SERIES_SHARES,
        "series_baseline_aggregation": "max_probability", "training_max_sequence_length": MOST,
        "long_series_inference_default": "resample",
    }  # fmt: skip


class Published:
    """The files, and the modules that they are of."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(3)
        self.folder = folder
        self.backbone = timm.create_model("test_convnext", num_classes=0, global_pool="", in_chans=6).eval()
        features = self.backbone(torch.zeros(1, 6, SIDE, SIDE)).shape[1]
        self.linear, self.sequence = nn.Linear(features, len(THEIRS)), Elsewhere(features).eval()
        classifier = {f"backbone.{name}": tensor for name, tensor in self.backbone.state_dict().items()}
        classifier |= {f"linear.{name}": tensor for name, tensor in self.linear.state_dict().items()}
        for file, tensors in ((CLASSIFIER, classifier), (SEQUENCE, self.sequence.state_dict())):
            (folder / file).parent.mkdir(parents=True)
            save_file(tensors, folder / file)
        (folder / SETTINGS).write_text(json.dumps(settings()))
        (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# A network\n\nWhat it saw.\n")

    @torch.no_grad()
    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (S, 6) and (6,) in its own labels' order, of one series."""
        embeddings = self.backbone(images).mean((2, 3))
        by_slice, last = self.linear(embeddings), len(images) - 1
        kept = [round(k * last / (MOST - 1)) for k in range(MOST)] if last >= MOST else list(range(last + 1))
        in_order, series = self.sequence(embeddings[kept], torch.tensor(kept) / max(last, 1))
        nearest = [min(range(len(kept)), key=lambda k: abs(kept[k] - n)) for n in range(last + 1)]
        slices = torch.lerp(by_slice, in_order[nearest], torch.tensor(SLICE_SHARES))
        return slices, torch.lerp(by_slice.amax(0), series, torch.tensor(SERIES_SHARES))


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path / "files")


@pytest.mark.parametrize("slices", [1, 4, 6, 7, 15])
@torch.no_grad()
def test_its_answers_are_the_same(published: Published, slices: int) -> None:
    model = import_network(published.folder).model
    hu = torch.randint(-900, 1500, (slices, 50, 70), generator=torch.Generator().manual_seed(1)).to(torch.int16)
    lengths, order = torch.tensor([slices]), [THEIRS.index(label) for label in LABELS]
    wanted, wanted_series = published.answers(model.images(hu, lengths))
    found = model(hu, lengths)
    assert torch.allclose(found.logits, wanted[:, order], atol=1e-4)
    assert found.exam_logits is not None
    assert torch.allclose(found.exam_logits[0], wanted_series[order], atol=1e-4)
    assert (model.config.windows, model.config.normalise, model.config.crop) == (
        ("bone", "brain"),
        "symmetric",
        "centre",
    )


def test_it_is_written_as_a_network_with_origin_and_licence(
    published: Published, phantoms: Path, tmp_path: Path
) -> None:
    out = tmp_path / "added"
    result = CliRunner().invoke(main, ["models", "add", str(published.folder), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "left out: sequence/model.safetensors: mil_pool (6 tensors)" in result.output
    assert is_network(out)
    assert "What it saw." in CliRunner().invoke(main, ["models", str(out)]).output
    model = Model.load(out)
    assert (model.trained_on["licence"], model.trained_on["phantom"]) == ("mit", False)
    once = import_network(published.folder).model
    assert all(torch.equal(tensor, once.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert (model.sequence_share, model.exam_share) == (once.sequence_share, once.exam_share)
    table = ichseq.predict(out, ichseq.load_series(phantoms)[0])
    assert np.isfinite(table[list(LABELS)]).all(axis=None)
    with pytest.raises(RunError, match=r"added: is there already"):
        ichseq.add_network(published.folder, out)


def test_a_licence_that_is_missing_is_a_remark(published: Published, tmp_path: Path) -> None:
    (published.folder / "README.md").unlink()
    done = ichseq.add_network(published.folder, tmp_path / "added")
    assert any("states no licence" in line for line in done.remarks)
    assert (done.folder / "README.md").is_file()


def _edit(file: Path, change: Any) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (SEQUENCE, lambda t: t.pop("projection.bias"), ["lacks 1 tensor", "sequence.enter.bias"]),
        (
            SEQUENCE,
            lambda t: t.update({"extra.weight": torch.zeros(2)}),
            ["nothing is known of 1 tensor", "extra.weight"],
        ),
        (CLASSIFIER, lambda t: t.update({"linear.bias": torch.zeros(5)}), ["another shape", "slice_head.bias"]),
        (CLASSIFIER, lambda t: t["linear.bias"].fill_(torch.nan), ["no finite numbers", "slice_head.bias"]),
        (SEQUENCE, lambda t: t.pop("sequence.weight_hh_l0"), ["no network can be made"]),
    ],
)
def test_other_tensors_are_refused(published: Published, file: str, change: Any, words: list[str]) -> None:
    _edit(published.folder / file, change)
    with pytest.raises(RunError) as caught:
        import_network(published.folder)
    assert all(word in str(caught.value) for word in [str(published.folder), *words]), str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["model_type"], "another"),
        (["labels"], ["epidural", "any"]),
        (["input", "windows"], [{"name": "stroke", "center": 32, "width": 8}]),
        (["input", "width"], 96),
        (["input", "large_image_resize_threshold"], 100),
        (["input", "normalization"], {"mean": 0.5}),
        (["input", "adjacent_slices"], 2),
        (["input", "channel_order"], "window-major"),
        (["slice_blend_alphas"], [2.0] * 6),
        (["series_baseline_aggregation"], "mean"),
        (["training_max_sequence_length"], None),
        (["architecture", "slice_classifier"], 7),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else "",
)
def test_settings_that_are_not_known_are_refused(published: Published, path: list[str], value: Any) -> None:
    content = settings()
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (published.folder / SETTINGS).write_text(json.dumps(content))
    with pytest.raises(RunError, match=path[-1]):
        import_network(published.folder)


@pytest.mark.parametrize("file", [SETTINGS, CLASSIFIER, SEQUENCE])
def test_a_missing_or_damaged_file_is_named(published: Published, file: str, tmp_path: Path) -> None:
    other = shutil.copytree(published.folder, tmp_path / "other")
    (other / file).write_bytes(b"{]")
    with pytest.raises(RunError, match=r"can't be read"):
        import_network(other)
    (published.folder / file).unlink()
    with pytest.raises(RunError, match=file):
        import_network(published.folder)


def test_from_the_hub_only_what_is_used_is_fetched_and_the_commit_travels(
    published: Published, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {str(path.relative_to(published.folder)): path.read_bytes()
             for path in published.folder.rglob("*") if path.is_file()}  # fmt: skip
    more = {"segmentation/fold0.safetensors": b"x", "inference.py": b"raise SystemExit"}
    with Hub() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        commit = hub.put("owner/elsewhere", files | more)
        done = ichseq.add_network("hf-hub:owner/elsewhere", tmp_path / "added")
        assert hub.fetched() == {SETTINGS, "model.safetensors", "README.md"}  # by their names alone
        assert {path.parent.name for path in tmp_path.glob("home/**/*.safetensors")} == {"classifier", "sequence"}
        hub.put("owner/other", {"README.md": b"x"})
        with pytest.raises(RunError, match=r"hf-hub:owner/other: has no config.json"):
            ichseq.add_network("hf-hub:owner/other", tmp_path / "other")
    origin = f"hf-hub:owner/elsewhere@{commit}"
    with pytest.warns(UserWarning, match=f"imported from {origin}; licence mit"):
        ichseq.predict(done.folder, ichseq.load_series(phantoms)[0])
    assert descent_of(Model.load(done.folder).trained_on) == [f"{origin}, licence mit"]
