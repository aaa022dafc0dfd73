"""Sweeps are plain joblib calls: a Dask cluster gives the results of the serial run, also when a worker dies.

Two worker processes on this machine stand for a cluster. What a real one needs besides is the scheduler's address:
`Client("tcp://...:8786")`.
"""

import os
import signal
import time

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from sklearn.model_selection import cross_val_score

import feature_learning as fl

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

SETTINGS = {
    "distributed.scheduler.allowed-failures": 5,  # of the workers that held a task, before the task is given up
    "distributed.worker.multiprocessing-method": "spawn" if os.name == "nt" else "forkserver",
    "distributed.worker.daemon": True,  # workers end with the process that started them
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "1m",  # a loaded machine answers late: no warnings
    "distributed.comm.timeouts.connect": "30s",
    "distributed.comm.timeouts.tcp": "30s",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a cluster of two worker processes: loopback only, no dashboard, files in a folder of their own."""
    with dask.config.set(SETTINGS | {"temporary-directory": str(tmp_path_factory.mktemp("dask"))}):
        if os.name != "nt":  # the server from which workers are forked imports once for all of them
            distributed.utils.get_mp_context().set_forkserver_preload(["distributed", "feature_learning"])
        with (
            distributed.LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=50,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            client.wait_for_workers(2, timeout=30)
            yield client


def pids(client):
    """Process ids of the workers that are alive."""
    return set(client.run(os.getpid).values())


def model(**changes):
    """A classifier that trains in a fraction of a second."""
    settings = {"n_particles": 50, "n_steps": 200, "device": "cpu", "random_state": 0} | changes
    return fl.MeanFieldLangevinClassifier(**settings)


def slow_fit(seed, pause):
    """A fit that lasts at least `pause` seconds; returns its particles and the process that did the work."""
    time.sleep(pause)
    x, y = fl.data.sparse_parity(60, 5, 2, seed)
    return model(random_state=seed).fit(x, y).particles_, os.getpid()


def test_a_cluster_gives_the_serial_results(client):
    x, y = fl.data.sparse_parity(90, 5, 2, 0)
    serial = cross_val_score(model(), x, y, cv=4)
    with parallel_config(backend="dask"):
        spread = cross_val_score(model(), x, y, cv=4)
        sweep = Parallel()(delayed(slow_fit)(seed, 0.3) for seed in range(6))
    np.testing.assert_array_equal(spread, serial)
    for seed, (particles, _) in enumerate(sweep):
        np.testing.assert_array_equal(particles, slow_fit(seed, 0)[0])
    assert {pid for _, pid in sweep} == pids(client)  # both workers, not this process
    assert os.getpid() not in pids(client)


def test_a_worker_that_is_killed_loses_nothing(client):
    """The scheduler gives a dead worker's tasks to the others, and the nanny starts a new worker."""
    before = pids(client)
    victim = min(before)
    with parallel_config(backend="dask"):
        results = Parallel(return_as="generator")(delayed(slow_fit)(seed, 0.3) for seed in range(8))
        sweep = [next(results)]
        os.kill(victim, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        sweep += list(results)
    assert len(sweep) == 8
    for seed, (particles, _) in enumerate(sweep):
        np.testing.assert_array_equal(particles, slow_fit(seed, 0)[0])
    client.wait_for_workers(2, timeout=30)
    assert victim not in pids(client)
