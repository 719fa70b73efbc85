"""Hostile cases of settings, models, sets and store files that somebody made to harm, sealed as ichseq seals them."""

import dataclasses
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from hostile_bytes import ANYHOW
from hostile_child import TAKEN, rng_of, writing_only
from hostile_dicom import small_network
from hostile_flips import leaf_of, load_model, load_run, load_set, make_run

from ichseq import Model
from ichseq.config import load_config
from ichseq.config.load import SECTIONS
from ichseq.data.index import Index
from ichseq.data.index_files import read_settings, write_index, write_settings
from ichseq.data.store import read_slices, read_stored
from ichseq.documents import SEAL, file_digest, sealed
from ichseq.evaluation.evaluate import evaluate_fold
from ichseq.experiment.spec import load_spec
from ichseq.runs.experiments import read_results
from ichseq.runs.patients import refuse_seen_patients

_NUMBERS = ("1e999", ".nan", ".inf", "-1", "0", "1e-400", "9" * 5000, "10000000000", "0x7fffffff", "1_000", "true", "~")
_TEXTS = ("''", "../../../etc/passwd", "/dev/zero", "http://localhost:9/x", "hf-hub:someone/nothing", "[]", "{}",
          "[[[1]]]", "!!python/object/apply:os.system ['id']", "!!binary aaaa", "!!int many", "2001-01-01", "&a [*a]",
          "'\\0'", "\"\\x00\\uD800\"", "[" + "1," * 5000 + "1]", "a" * 100_000)  # fmt: skip
_JSON = (None, True, -1, 0, 1 << 70, 10**9, 1e308, "", "x", "../../x", "A" * 100_000, [], [[]], {}, {"a": {}},
         [1] * 1000, ["flip"] * 1000, "hf-hub:someone/nothing", "/etc/passwd", "local-dir:/etc")  # fmt: skip
_YAML_TEXTS = (
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip(
        "abcdefgh", "bcdefghi", strict=True)),
    "train: " + "{a: " * 3000 + "1" + "}" * 3000,
    "train: " + "[" * 100_000,
    "train:\n" + "".join(f"  k{k}: 1\n" for k in range(9000)),
    "&a [*a]", "a: &a\n  <<: *a\n", "train: {<<: {<<: {epochs: 3}}}", "train: {epochs: 1, epochs: 2}", "\0", "\ufeff",
    "%YAML 9.9\n---\n", "--- a\n--- b\n", "train: !!python/name:os.system", "? [1, 2]\n: 3", "? {a: 1}\n: 3",
    "1: 2", "~: 1", "train: ~", "[]", "text", "!!set {model}", "model: *nothing", "base: [[]]", "base: ../x",
    "experiment: {stages: [joint], folds: [9999999999]}", "experiment: {blend: [.]}", "base: case.yaml",
    "x" * 200_001, "train: {epochs: " + "9" * 190_000 + "}",
)  # fmt: skip


class Settings:
    """What a person may be sent, loaded by what uses it."""

    ground = "run"
    make = staticmethod(make_run)

    def __init__(self, work: Path, seed: int) -> None:
        self.seed, self.sound, self.work = seed, work, work / "copy"
        self._renew()
        load_set(self.work), load_model(self.work), load_run(self.work)
        small_network()

    def _renew(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        for name in ("set", "run"):
            shutil.copytree(self.sound / name, self.work / name)

    def __call__(self, number: int) -> str:
        rng = rng_of(self.seed, "settings", number)
        self._renew()
        with writing_only(self.work):
            BUILDERS[number % len(BUILDERS)](self.work, rng)
        return TAKEN


def _of_yaml(work: Path, text: str) -> None:
    """Read as a configuration, and as an experiment."""
    file = work / "case.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    both = [_error(lambda: load_config("joint", file)), _error(lambda: load_spec(file))]
    for error in both:
        if error is not None:
            raise error


def _error(load: Callable[[], object]) -> Exception | None:
    try:
        load()
    except Exception as error:
        return error
    return None


def yaml_texts(work: Path, rng: random.Random) -> None:
    """Bombs, and what YAML can say and no configuration does."""
    _of_yaml(work, rng.choice(_YAML_TEXTS))


def yaml_values(work: Path, rng: random.Random) -> None:
    """A setting that exists, with a value that it cannot have."""
    section = rng.choice(list(SECTIONS))
    name = rng.choice([item.name for item in dataclasses.fields(SECTIONS[section])])
    value = rng.choice((*_NUMBERS, *_TEXTS))
    _of_yaml(work, f"{section}:\n  {name}: {value}\n")
    load_config("joint", None, [f"{section}.{name}={value}"])


def yaml_damaged(work: Path, rng: random.Random) -> None:
    """A run's own configuration with bytes changed."""
    text = yaml.safe_dump(load_config("joint").to_dict()).encode()
    (work / "case.yaml").write_bytes(rng.choice(ANYHOW)(text, rng))
    load_config("joint", work / "case.yaml")


def model_settings(work: Path, rng: random.Random) -> None:
    """A model.json that asks for something else, sealed."""
    file = leaf_of(work) / "model.json"
    content = json.loads(file.read_text())
    part = content["config"] if rng.random() < 0.7 else content
    part[rng.choice([*part, "more"])] = rng.choice(_JSON)
    _seal(file, content)
    load_model(work)


def model_sizes(work: Path, rng: random.Random) -> None:
    """A model.json that asks for memory without bound."""
    file = leaf_of(work) / "model.json"
    content = json.loads(file.read_text())
    name, value = rng.choice((("hidden_size", 10**6), ("hidden_size", 10**12), ("layers", 10**6), ("image_size", 10**6),
                              ("neighbours", 10**6), ("windows", ["brain"] * 16), ("backbone", "vit_giant_patch14_224"),
                              ("cross_slice", [1] * 16), ("exam_size", 10**9), ("heads", 10**9)))  # fmt: skip
    content["config"][name] = value
    _seal(file, content)
    load_model(work)


def model_weights(work: Path, rng: random.Random) -> None:
    """A file of weights that is none, or of other tensors, with the hash that belongs to it."""
    leaf = leaf_of(work)
    sound = (leaf / "weights.safetensors").read_bytes()
    size = struct.unpack("<Q", sound[:8])[0]
    head = json.loads(sound[8 : 8 + size])
    name = rng.choice([key for key in head if key != "__metadata__"])
    change = rng.randrange(6)
    if change == 0:
        head[name]["shape"] = rng.choice(([1 << 40], [-1], [0], [], [1] * 10_000))
    elif change == 1:
        head[name]["dtype"] = rng.choice(("F64", "I64", "BOOL", "F8_E5M2", "X"))
    elif change == 2:
        head[name]["data_offsets"] = rng.choice(([0, 1 << 60], [8, 4], [0, 0]))
    elif change == 3:
        head[rng.choice(("x", "__metadata__"))] = head.pop(name)
    text = json.dumps(head).encode() if change < 4 else b"[" * 1000
    length = (1 << 62) if change == 5 else len(text)
    (leaf / "weights.safetensors").write_bytes(struct.pack("<Q", length) + text + sound[8 + size :])
    content = json.loads((leaf / "model.json").read_text())
    content["weights_sha256"] = file_digest(leaf / "weights.safetensors")
    _seal(leaf / "model.json", content)
    load_model(work)


def model_not_finite(work: Path, rng: random.Random) -> None:
    """Weights that are no numbers: an answer must not be an empty cell."""
    leaf = leaf_of(work)
    model = Model.load(leaf, device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(rng.choice((float("nan"), float("inf"))))
    model.save(leaf)
    evaluate_fold(leaf, Index.load(work / "set"))
    raise AssertionError("weights that are no numbers were scored")


def json_texts(work: Path, rng: random.Random) -> None:
    """Documents that are deep, large or no JSON."""
    leaf, index = leaf_of(work), work / "set" / "index.json"
    file, load = rng.choice(((leaf / "run.json", load_run), (leaf / "calibration.json", load_run),
                             (leaf / "model.json", load_model), (index, load_set)))  # fmt: skip
    file.write_bytes(rng.choice((b"[" * 200_000, b'{"a":' * 100_000, b"NaN", b'{"sha256": NaN}', b"9" * 10_000, b"null",
                                 b'{"a": 1e999}', b"\xff\xfe", b'"\\ud800"', b"{}" + b" " * (65 << 20), b"[]", b"1",
                                 b'{"format": ' + b"9" * 5000 + b"}", b'{"format": "x"}')))  # fmt: skip
    load(work)


def run_values(work: Path, rng: random.Random) -> None:
    """A run.json or a calibration with another value, sealed."""
    file = leaf_of(work) / rng.choice(("run.json", "calibration.json"))
    content = json.loads(file.read_text())
    content[rng.choice([*content, "fold", "patients", "prevalence"])] = rng.choice(_JSON)
    _seal(file, content)
    load_run(work)


def results(work: Path, rng: random.Random) -> None:
    """The figures and the cost of an experiment, with another value."""
    folder = work / "results" / "one"
    folder.mkdir(parents=True)
    shutil.copy(leaf_of(work) / "metrics.json", folder / "metrics.json")
    content = json.loads((folder / "metrics.json").read_text())
    content |= {"name": "one", "system": "one", "folds": [0]}
    content[rng.choice(list(content))] = rng.choice(_JSON)
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "cost.json").write_text(json.dumps({"stages": rng.choice(([], [{}], [1], {}, None))}))
    read_results(work / "results")


def index_settings(work: Path, rng: random.Random) -> None:
    """An index.json with another value, sealed."""
    folder = work / "set"
    settings = read_settings(folder)
    settings[rng.choice([*settings, "exam_labels", "more"])] = rng.choice(_JSON)
    kept = {name: value for name, value in settings.items() if name not in ("format", "codec", "hu_range", "finished")}
    write_settings(folder, finished=True, **kept)
    _use_set(work)


def index_tables(work: Path, rng: random.Random) -> None:
    """Tables with a value that no set has, with the hashes that belong to them."""
    folder = work / "set"
    series, slices = pq.read_table(folder / "series.parquet"), pq.read_table(folder / "slices.parquet")
    table, other = (series, slices) if rng.random() < 0.6 else (slices, series)
    place = rng.randrange(len(table.schema))
    kind = table.schema.field(place).type
    values = table.column(place).to_pylist()
    hostile: tuple[Any, ...] = (None, "", "../../../etc/passwd", "store/../../x", "/etc/passwd", "=1+1", "\0", "x\ny",
                                "store/aa/" + "aa" * 20 + "-" + "0" * 16 + ".b2nd") if pa.types.is_string(kind) else (
        None, *([True, False] if pa.types.is_boolean(kind) else [-1, 0, 1, 30_000]))  # fmt: skip
    if pa.types.is_floating(kind):
        hostile = (None, float("nan"), float("inf"), -1e308, 0.5)
    values[rng.randrange(len(values))] = rng.choice(hostile)
    table = table.set_column(place, table.schema.field(place), pa.array(values, kind))
    tables = (table, other) if "store" in table.schema.names else (other, table)
    settings = {name: read_settings(folder)[name] for name in ("folds", "seed", "source", "labels")}
    try:
        write_index(folder, *tables, **settings)
    except Exception:  # it can't even be written; so it is written by hand
        pq.write_table(table, folder / ("series.parquet" if "store" in table.schema.names else "slices.parquet"))
    _use_set(work)


def store_file(work: Path, rng: random.Random) -> None:
    """A file of the store of another make, or that says something else of itself."""
    path = rng.choice(sorted((work / "set" / "store").glob("*/*.b2nd")))
    path.unlink()
    change = rng.randrange(6)
    if change == 0:  # terabytes of zeros in a few bytes
        array = blosc2.zeros((1 << 12, 1 << 12, 1 << 12), dtype=np.int16, urlpath=str(path))
    elif change == 1:
        array = blosc2.asarray(
            np.zeros((3, 16, 16), rng.choice((np.float32, np.int64, "S8", np.int8))), urlpath=str(path)
        )
    else:
        array = blosc2.asarray(np.zeros((3, 16, 16), np.int16), chunks=(1, 16, 16), urlpath=str(path))
    notes: Any = [{"codec": "blosc2-zstd1-shuffle-2", "sums": "00" * 24, "notes": {}}, {"codec": 1}, [], "x",
                  {"sums": 3}, {"codec": "blosc2-zstd1-shuffle-2", "sums": "zz", "notes": []}][change]  # fmt: skip
    array.schunk.vlmeta["ichseq"] = sealed(notes) if isinstance(notes, dict) else notes
    del array
    both = [_error(lambda: read_stored(path)), _error(lambda: read_slices(path)), _error(lambda: load_set(work))]
    for error in both:
        if error is not None:
            raise error


def _use_set(work: Path) -> None:
    """What training and evaluation ask of a set, beyond its pixels."""
    load_set(work)
    index = Index.load(work / "set")
    for series in (index.training_series(0), index.validation_series(0)):
        index.prevalence(series), index.exam_prevalence(series), index.slice_distance_mm(series)
    refuse_seen_patients(leaf_of(work), index, 0)


def _seal(file: Path, content: dict[str, Any]) -> None:
    content.pop(SEAL, None)
    file.write_text(json.dumps(sealed(content)))


BUILDERS: tuple[Callable[[Path, random.Random], None], ...] = (
    yaml_texts, yaml_values, yaml_values, yaml_damaged, model_settings, model_settings, model_sizes, model_weights,
    model_not_finite, json_texts, run_values, results, index_settings, index_tables, index_tables, store_file,
)  # fmt: skip
