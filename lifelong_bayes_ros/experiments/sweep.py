"""Running many jobs: in processes of this machine, or on a Ray cluster.

A job is anything with `run(progress)`. Its result comes back to this process, which keeps it, so
that an end by Ctrl-C, a signal or a power cut loses only what was running.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError
from ..paths import cache_dir

REPORT_EVERY = 0.3  # s between two words of a worker about its progress


class Job(Protocol):
    """Something to do elsewhere; it must pickle."""

    def run(self, progress: Callable[[float], None]) -> Any:
        """Do it; `progress` takes the share done."""


class Failure(str):
    """Why a job has no result."""


Outcome = tuple[int, Any]  # number of the job; its result, or a Failure
Watch = Callable[[dict[int, float]], None]  # told the share done of every running job


def run_here(jobs: Sequence[Job], processes: int, watch: Watch) -> Iterator[Outcome]:
    """Run jobs in processes of their own, each on one thread; yields outcomes as they come.

    A worker that dies fails its job only. Leaving the iteration ends all workers.
    """
    todo = deque(enumerate(jobs))
    workers: dict[Connection, tuple[Any, int]] = {}
    shares: dict[int, float] = {}
    idle: list[tuple[Connection, Any]] = []
    try:
        while todo or workers:
            while todo and len(workers) < processes:
                connection, process = idle.pop() if idle else _start()
                try:
                    connection.send(todo[0][1])
                except (BrokenPipeError, ConnectionResetError):
                    continue  # it died while it had nothing to do
                number, _ = todo.popleft()
                workers[connection] = (process, number)
                shares[number] = 0.0
            watch(shares)
            for connection in wait(list(workers), timeout=1.0):
                process, number = workers[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, ConnectionResetError):
                    process.join()
                    kind, value = 'done', Failure(f'its process died ({_ending(process)})')
                else:
                    if kind == 'done':
                        idle.append((connection, process))
                if kind == 'share':
                    shares[number] = value
                    continue
                del workers[connection], shares[number]
                yield number, value
    finally:
        for process in [p for _, p in idle] + [p for p, _ in workers.values()]:
            process.terminate()
            process.join()


def _start() -> tuple[Connection, Any]:
    # Not fork: this process may run threads.
    spawn = multiprocessing.get_context('spawn')
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # or the end of the worker would not end the connection
    return ours, process


def _work(connection: Connection) -> None:
    """A worker's life: jobs in, outcomes out, until the other end is closed or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    _one_thread()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job, told = connection.recv(), time.monotonic()

            def progress(share: float) -> None:
                nonlocal told
                if time.monotonic() - told > REPORT_EVERY:
                    told = time.monotonic()
                    connection.send(('share', share))

            connection.send(('done', _attempt(job, progress)))


def _attempt(job: Job, progress: Callable[[float], None]) -> Any:
    try:
        return job.run(progress)
    except (BrokenPipeError, ConnectionResetError):
        raise  # nobody waits for it any more
    except UserError as error:
        return Failure(str(error))
    except Exception:
        return Failure(traceback.format_exc(limit=-3))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _ending(process: Any) -> str:
    code = process.exitcode
    return signal.Signals(-code).name if code is not None and code < 0 else f'status {code}'


# ---------------------------------------------------------------------- Ray
def run_on_ray(
    jobs: Sequence[Job], address: str, cached: Sequence[Path], watch: Watch
) -> Iterator[Outcome]:
    """Run jobs on a Ray cluster that has this package installed, one core each.

    Args:
        jobs: what to do.
        address: of the cluster's head, e.g. `ray://head:10001` or `auto`; `local` starts one here.
        cached: files of this machine's cache that jobs need; they go along, so that every machine
            works with the same priors to the last bit.
        watch: told the running jobs.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    ray = connect(address)
    try:
        files = ray.put({path.name: path.read_bytes() for path in cached})
        # A worker that died lost its job, not the sweep; Ray starts another.
        remote = ray.remote(num_cpus=1, max_retries=1)(_remote)
        pending = {remote.remote(job, files): number for number, job in enumerate(jobs)}
        while pending:
            watch(dict.fromkeys(list(pending.values())[:1], 0.0))
            done, _ = ray.wait(list(pending), timeout=1.0)
            for reference in done:
                number = pending.pop(reference)
                try:
                    yield number, ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield number, Failure(str(error).strip().splitlines()[-1])
    finally:
        ray.shutdown()


def ray_module() -> Any:
    """The `ray` module.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError(
            "--ray needs Ray, which is not installed: pip install 'lifelong_bayes_ros[ray]'"
        ) from None
    return ray


def connect(address: str) -> Any:
    """The `ray` module, connected to a cluster.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    ray = ray_module()
    here = {'num_cpus': multiprocessing.cpu_count(), 'include_dashboard': False}
    options = here if address == 'local' else {}
    try:
        host, colon, port = address.rpartition('://')[2].rpartition(':')
        if colon:  # where nothing listens Ray would go on trying for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # a bare one if a cluster of its own does not start in time
        mend = 'start one with `ray start --head`, or give `local`'
        if address == 'local':
            mend = 'try again when this machine is less busy, or do without --ray'
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f'--ray {address}: no Ray cluster answers ({said}); {mend}') from None
    return ray


def _remote(job: Job, files: dict[str, bytes]) -> Any:
    from ..learning.store import write_atomically

    _one_thread()
    for name, data in files.items():
        path = cache_dir() / name
        if not path.is_file():
            write_atomically(path, data)
    return _attempt(job, lambda share: None)
