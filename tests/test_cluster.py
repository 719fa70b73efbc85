"""A real Dask cluster of two workers does what this process does; one that is not there is named."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import torch
from distributed import LocalCluster

from ichseq.cluster import dask_cluster
from ichseq.data.index import Index
from ichseq.data.prepare import prepare
from ichseq.errors import ConfigError
from ichseq.inference import cluster
from ichseq.inference.cluster import predict_distributed
from ichseq.inference.predict import predict_sources
from ichseq.labels import LABELS
from ichseq.model import Model
from ichseq.runs.folders import leaf_of


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as dask:
        yield dask.scheduler_address


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_prepared_by_a_cluster_is_byte_for_byte_the_same(
    scheduler: str, phantoms: Path, prepared: Path, tmp_path: Path
) -> None:
    with dask_cluster(scheduler):
        prepare(phantoms, tmp_path / "set")
    here = {name: digest for name, digest in contents(prepared).items() if not name.startswith("embeddings")}
    assert contents(tmp_path / "set") == here


def test_predicted_by_a_cluster_is_the_same(scheduler: str, phantoms: Path, run: Path) -> None:
    leaf = leaf_of(run, "joint", 0)
    here = predict_sources([Model.load(leaf)], [phantoms / "stage_2_train"])
    with dask_cluster(scheduler):
        there = predict_sources(predict_distributed([leaf]), [phantoms / "stage_2_train"])
    pd.testing.assert_frame_equal(there.slices, here.slices, rtol=1e-5)
    assert there.exams["series_uid"].tolist() == here.exams["series_uid"].tolist()


def test_a_worker_notices_that_the_weights_have_changed(scheduler: str, phantoms: Path, run_copy: Path) -> None:
    leaf = leaf_of(run_copy, "joint", 0)
    predictor = predict_distributed([leaf])
    with dask_cluster(scheduler):
        before = predict_sources(predictor, [phantoms / "stage_2_test"]).slices
        model = Model.load(leaf)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        model.save(leaf)
        after = predict_sources(predictor, [phantoms / "stage_2_test"]).slices
    assert not np.allclose(before[list(LABELS)], after[list(LABELS)])
    pd.testing.assert_frame_equal(after, predict_sources([model], [phantoms / "stage_2_test"]).slices, rtol=1e-5)


def test_threads_load_a_model_once_and_the_last_one_alone_is_kept(run: Path, run_copy: Path) -> None:
    one, other = (cluster._state(leaf_of(folder, "joint", 0)) for folder in (run, run_copy))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cluster._load(((one,), (), "cpu")), range(4)))
    assert len({id(ensemble) for ensemble in found}) == 1
    key = ((one, other), ("flip",), "cpu")
    cluster._load(key)
    assert list(cluster._loaded) == [key]


def test_sources_may_be_named_relatively(
    scheduler: str, phantoms: Path, prepared: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shutil.make_archive(str(tmp_path / "scans"), "zip", phantoms / "stage_2_test")
    leaf = leaf_of(run, "joint", 0)
    with dask_cluster(scheduler):  # its workers stand where they were started
        monkeypatch.chdir(phantoms)
        prepare("stage_2_train", tmp_path / "set")
        table = predict_sources(predict_distributed([leaf]), ["stage_2_test"]).slices
        monkeypatch.chdir(tmp_path)
        zipped = predict_sources(predict_distributed([leaf]), [Path(archive).name]).slices
        prepare(Path(archive).name, tmp_path / "zipped", folds=1)
    assert Index.load(tmp_path / "set").key == Index.load(prepared).key
    assert all(file.startswith("stage_2_test/") for file in table["file"])
    assert table["sop_uid"].tolist() == zipped["sop_uid"].tolist()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Dask's settings for a certificate that everyone in the cluster has, and trusts."""
    folder = tmp_path_factory.mktemp("certificate")
    key, cert = str(folder / "node.key"), str(folder / "node.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=ichseq"]
    if shutil.which(make[0]) is None:
        pytest.skip("there is no openssl to make a certificate with")
    subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
    tls = "distributed.comm.tls"
    return {f"{tls}.ca-file": cert} | {
        f"{tls}.{who}.{what}": path
        for who in ("scheduler", "worker", "client")
        for what, path in (("cert", cert), ("key", key))
    }


def test_a_cluster_over_tls_lets_in_who_has_a_certificate(
    certificate: dict[str, str], phantoms: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf, scans = leaf_of(run, "joint", 0), phantoms / "stage_2_test"
    with dask.config.set({**certificate, "distributed.comm.require-encryption": True}):
        tls = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", protocol="tls://")
        with tls:
            address = tls.scheduler_address
            assert address.startswith("tls://")
            with dask_cluster(address):
                there = predict_sources(predict_distributed([leaf]), [scans])
            monkeypatch.setattr("ichseq.cluster._SECONDS", 1)
            stranger = {**dict.fromkeys(certificate), "distributed.comm.require-encryption": False}
            with dask.config.set(stranger):
                with pytest.raises(ConfigError, match=r"TLS expects .*DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
                    dask_cluster(address).__enter__()
                with pytest.raises(ConfigError, match="no Dask scheduler"):
                    dask_cluster(address.replace("tls", "tcp")).__enter__()
    here = predict_sources([Model.load(leaf)], [scans])
    pd.testing.assert_frame_equal(there.slices, here.slices, rtol=1e-5)


def test_no_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ichseq.cluster._SECONDS", 1)
    with (
        pytest.raises(ConfigError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"),
        dask_cluster("tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize("address", ["nonsense", "tcp://node1", ""])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match="not an address"), dask_cluster(address):
        pass


def test_no_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ichseq.cluster._SECONDS", 1)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as dask,
        pytest.raises(ConfigError, match="has no worker"),
        dask_cluster(dask.scheduler_address),
    ):
        pass
