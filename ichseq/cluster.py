"""A Dask cluster for what joblib does in parallel: prepare and predict."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import joblib

from ichseq.errors import ConfigError

_SECONDS = 10  # to find the scheduler, and a worker


@contextmanager
def dask_cluster(scheduler: str | None) -> Iterator[None]:
    """While inside, joblib's workers are those of a Dask cluster; without a scheduler nothing changes.

    The workers have to see the source and the output under the same paths, and to have ichseq.

    Args:
        scheduler: its address, such as tcp://node1:8786; or tls://node1:8786 with certificates of Dask's settings.

    Raises:
        ConfigError: Dask is not installed, there is no scheduler or no worker, or no certificate for one.
    """
    if scheduler is None:
        yield
        return
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise ConfigError("--scheduler needs Dask: pip install 'ichseq[cluster]'") from None
    if not re.fullmatch(r"(\w+://)?[^\s/]+:\d+/?", scheduler):
        raise ConfigError(f"--scheduler {scheduler}: not an address; give one such as tcp://node1:8786")
    try:
        client = Client(scheduler, timeout=_SECONDS, set_as_default=False)
    except TypeError as error:  # of a tls:// address without a certificate
        raise ConfigError(f"--scheduler {scheduler}: {str(error).splitlines()[0]}; name certificates in Dask's "
                          "settings (DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..__CLIENT__CERT and ..__CLIENT__KEY)"
                          ) from None  # fmt: skip
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(f"no Dask scheduler at {scheduler} ({type(error).__name__}); start one with `dask scheduler` "
                          "and give its address, such as tcp://node1:8786") from None  # fmt: skip
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS)
        except (TimeoutError, OSError):
            raise ConfigError(f"the Dask scheduler at {scheduler} has no worker; start some with `dask worker "
                              f"{scheduler}`") from None  # fmt: skip
        with joblib.parallel_config(backend="dask", client=client):
            try:
                yield
            except KilledWorker as error:
                raise ConfigError(
                    f"a task ended its worker {error.last_worker.address} again and again, for want of memory perhaps; "
                    "see the worker's log, or start workers with more of it"
                ) from None
