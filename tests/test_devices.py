"""Running out of memory is recognised, and answered without changing a result."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ichseq import Model
from ichseq.config import load_config
from ichseq.devices import free_bytes, out_of_memory, with_index
from ichseq.runs.folders import leaf_of
from ichseq.training.train import train_stage

HERE = Path(__file__).parent
SETTINGS = (
    "model.backbone=test_resnet",
    "model.pretrained=false",
    "model.image_size=160",
    "model.hidden_size=8",
    "model.freeze_bn=true",
    "train.epochs=1",
    "train.warmup_steps=1",
    "train.workers=0",
    "train.chunk_size=8",
)
LIMITED = """
import re, resource, sys, torch
from pathlib import Path
from ichseq.config import load_config
from ichseq.data.index import Index
from ichseq.runs.folders import leaf_of
from ichseq.training.train import start_training
torch.set_num_threads(1)
data, out, settings = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
config, index = load_config("joint", None, settings), Index.load(data)
training = start_training(config, "joint", index, 0, leaf_of(out, "joint", 0))
now = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_AS, (now + 500_000_000,) * 2)
training.run()
"""


def test_what_the_cpu_says_when_memory_ends_is_recognised() -> None:
    code = (
        "import re, resource, torch; from pathlib import Path; from ichseq.devices import out_of_memory\n"
        "now = 1024 * int(re.search(r'VmSize:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 50_000_000,) * 2)\n"
        "try: torch.empty(10**9)\n"
        "except Exception as error: print(out_of_memory(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "True", done.stderr
    for words in ("CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"):
        assert out_of_memory(RuntimeError(words))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_free_memory_is_a_part_of_the_machine() -> None:
    total = 1024 * int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    assert 0 < free_bytes(torch.device("cpu")) < total


def test_a_gpu_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is asked: this is about the argument that its calls are given."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.5 if device.index == 1 else 0)
    assert free_bytes(torch.device("cuda")) == 36  # half of 80, less 4 in use
    assert with_index(torch.device("cuda")) == torch.device("cuda:1")
    assert with_index(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_AS)[1] != -1, reason="the address space is limited already")
def test_a_step_that_does_not_fit_is_tried_again_with_the_same_result(prepared: Path, tmp_path: Path) -> None:
    settings = [*SETTINGS, "train.checkpointing=off"]
    whole = train_stage(load_config("joint", None, settings), "joint", data=prepared, fold=0, out=tmp_path / "whole",
                  progress=False)  # fmt: skip
    model = Model.load(whole)
    assert 140 * model.activation_bytes() > 600e6  # more than the limited process is given
    command = [sys.executable, "-c", LIMITED, str(prepared), str(tmp_path / "limited"), *settings]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    leaf = leaf_of(tmp_path / "limited", "joint", 0)
    assert "out of memory at step 1: the backbone is recomputed" in (leaf / "log.txt").read_text()
    one, two = load_file(whole / "weights.safetensors"), load_file(leaf / "weights.safetensors")
    assert all(torch.allclose(one[key], two[key], rtol=1e-4, atol=1e-6) for key in one)


def test_inference_goes_on_in_halves_where_a_chunk_does_not_fit() -> None:
    code = (
        "import re, resource, torch; from pathlib import Path; import ichseq\n"
        "torch.set_num_threads(1); torch.manual_seed(0)\n"
        "model = ichseq.Model('test_resnet', image_size=224, hidden_size=8, chunk_size=64).eval()\n"
        "hu = torch.randint(-100, 200, (64, 32, 32), dtype=torch.int16); lengths = torch.tensor([64])\n"
        "with torch.inference_mode():\n"
        "    plain = model(hu, lengths)\n"
        "    now = 1024 * int(re.search(r'VmSize:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (now + 130_000_000,) * 2)\n"
        "    again = model(hu, lengths)\n"
        "print(model.chunk_size, float((plain - again).abs().max()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    chunk, difference = done.stdout.split()
    assert int(chunk) < 64
    assert float(difference) < 1e-5
