"""Work on the machines of a Ray cluster, or on this one by a cluster of its own.

Of Ray only actors are used, one a GPU, or a few cores where there is none. They read and write files themselves: what
goes through Ray is the names of jobs and small outcomes, no pixels and no features.
"""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

from threadpoolctl import threadpool_limits

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.machine import crew
from genedml_cli.machine.crew import Job, Place, Result, State, Worker
from genedml_cli.machine.packing import pack, unpack
from genedml_cli.machine.stopping import SIGNALS

TRIES = 3
FEW_CORES = 4
GPU = "cuda:0"
STORE_BYTES = 80 * 2**20
"""Of Ray's object store, nearly the least it takes: outcomes do not need it."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # the environment of the workers is the one that is there
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # an actor without a GPU sees none
}
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # where it is 0, on Linux too, all ports listen on 127.0.0.1 alone
    "RAY_AUTH_MODE": "token",
}
Answer = tuple[str, Any, list[console.Message]]


@dataclass(frozen=True)
class OnRay:
    """Actors of Ray, each in a process of its own. One that dies costs its job only if that kills three.

    Args:
        address: of a cluster, as ``ray://host:port``; else that in ``RAY_ADDRESS``, else one is started here.
        device: where actors compute that have no GPU.
        gpus: whether GPUs of the cluster are taken, where there are some.
        deterministic: see :class:`genedml_cli.machine.compute.Compute`.
    """

    address: str
    device: str
    gpus: bool
    deterministic: bool = False

    def run(
        self, setup: Callable[[Place], State], call: Callable[[State, Job], Result], jobs: Sequence[Job]
    ) -> Iterator[Result | crew.Failed[Job]]:
        """As :meth:`genedml_cli.machine.crew.Executor.run`.

        Raises:
            GeneDMLError: Ray is not installed, or there is no cluster at the address.
        """
        if not jobs:
            return
        with _connected(self.address or os.environ.get("RAY_ADDRESS", ""), self.gpus) as ray:
            engine = _Actors(ray, setup, call)
            places = engine.places(self.device, self.gpus, self.deterministic)[: len(jobs)]
            if not places:
                raise GeneDMLError(
                    "The Ray cluster has no processors. Start nodes that have some: ray start --num-cpus N."
                )
            where = f"{console.count(engine.machines, 'machine')} of Ray"
            each = "with a GPU each" if places[0].device == GPU else f"of {console.count(places[0].cores, 'core')} each"
            console.note(f"{console.count(len(places), 'worker')} {each} on {where}.")
            yield from crew.Crew(engine, jobs).run(places)


class _Actors:
    """An engine of Ray actors; the handle of a worker is its actor."""

    tries = TRIES
    remedy = (
        "If its machine was lost, start it again (ray status lists them); if its memory was full, start that node with "
        "a smaller --num-cpus or --num-gpus"
    )

    def __init__(self, ray: ModuleType, setup: Callable[[Place], Any], call: Callable[[Any, Any], Any]) -> None:
        self._ray, self._calls = ray, pack((setup, call))
        self._nodes: dict[int, dict[str, Any]] = {}
        self._inbox: SimpleQueue[tuple[Worker, Future[Answer]]] = SimpleQueue()
        self._actors: list[Any] = []

    @property
    def machines(self) -> int:
        """How many nodes the places are on."""
        return len({node["NodeID"] for node in self._nodes.values()})

    def places(self, device: str, gpus: bool, deterministic: bool) -> list[Place]:
        """One a GPU of the cluster; where none is to be taken, one a few cores. Those of a node are numbered apart.

        They share the cores of their node, and torch computes in as many threads, unless OMP_NUM_THREADS here says
        otherwise for all.
        """
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        with_gpus = [node for node in nodes if gpus and node["Resources"].get("GPU")]
        threads = os.environ.get("OMP_NUM_THREADS", "")
        places: list[list[Place]] = []
        for node in with_gpus or nodes:
            resources = node["Resources"]
            count = int(resources["GPU"]) if with_gpus else max(1, int(resources["CPU"]) // FEW_CORES)
            first = len(self._nodes)
            self._nodes |= {first + number: node for number in range(count)}
            cores = max(1, int(resources["CPU"]) // count)
            of_torch, where = int(threads) if threads.isdecimal() else cores, GPU if with_gpus else device
            first_place = Place(where, of_torch, first, count, deterministic, cores)
            places.append([replace(first_place, number=first + number) for number in range(count)])
        longest = max(map(len, places), default=0)
        return [of_node[row] for row in range(longest) for of_node in places if row < len(of_node)]

    def start(self, place: Place) -> Worker:
        """See :class:`genedml_cli.machine.crew.Engine`."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self._nodes[place.number]
        actor = (
            self._ray.remote(_Actor)
            .options(
                num_cpus=place.cores,
                num_gpus=1 if place.device == GPU else 0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote(place, self._calls)
        )
        self._actors.append(actor)
        worker = Worker(place, actor)
        self._expect(worker, actor.load.remote())
        return worker

    def give(self, worker: Worker, job: Any) -> None:
        """See :class:`genedml_cli.machine.crew.Engine`."""
        self._expect(worker, worker.handle.do.remote(pack(job)))

    def hear(self) -> Iterator[tuple[Worker, str, Any]]:
        """See :class:`genedml_cli.machine.crew.Engine`.

        It waits in Python: Ray's own waiting would swallow the exception that a signal raises.
        """
        worker, answer = self._inbox.get()
        errors = self._ray.exceptions
        try:
            kind, value, messages = answer.result()
        except errors.RayTaskError:  # a bug, not a death
            raise
        except errors.RayError as error:
            why = str(error).splitlines()[-1].strip().split(". ")[0]
            yield worker, crew.DIED, f"on {self._nodes[worker.place.number]['NodeManagerHostname']}: {why}"
            return
        for message in messages:
            yield worker, *message
        yield worker, kind, value

    def end(self) -> None:
        """See :class:`genedml_cli.machine.crew.Engine`."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _expect(self, worker: Worker, reference: Any) -> None:
        reference.future().add_done_callback(lambda answer: self._inbox.put((worker, answer)))


class _Actor:
    """In a process of Ray: what all jobs at its place share."""

    def __init__(self, place: Place, calls: bytes) -> None:
        self._place, self._calls = place, calls

    def load(self) -> Answer:
        """Make what the jobs share."""
        return self._answer(crew.READY, self._load)

    def do(self, job: bytes) -> Answer:
        """Do a job."""
        return self._answer(crew.RESULT, lambda: self._call(self._state, unpack(job)))

    def _load(self) -> None:
        setup, self._call = unpack(self._calls)
        threadpool_limits(self._place.threads)  # Ray gives libraries one thread; another number rounds in another way
        self._state = setup(self._place.settle())

    def _answer(self, kind: str, work: Callable[[], Any]) -> Answer:
        messages: list[console.Message] = []
        console.relay(messages.append)
        try:
            return kind, work(), messages
        except Exception as error:
            raised = crew.portable(error)
            raised.add_note(f"This was on {socket.gethostname()}.")
            return crew.ERROR, raised, messages


@contextmanager
def _connected(address: str, gpus: bool) -> Iterator[ModuleType]:
    """Ray, connected with the cluster at an address, or with one that is started here and ended with the block.

    Raises:
        GeneDMLError: Ray is not installed, or there is no cluster.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    temporary = None if address else Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets have short names
    try:
        if "ray" not in sys.modules:  # it reads them when it is imported
            for name, value in (
                QUIET if address else {**QUIET, **LOOPBACK, "RAY_AUTH_TOKEN": os.urandom(32).hex()}
            ).items():
                os.environ.setdefault(name, value)
        ray = _import_ray()
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            ray.init(address or "local", **settings, **({} if temporary is None else _cluster_here(temporary, gpus)))
        except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
            where = f"No Ray cluster can be reached at {address}" if address else "Ray cannot start here"
            raise GeneDMLError(f"{where}: {_reason(error)}") from error
        finally:
            for number, handler in handlers.items():  # Ray has one of its own for SIGTERM
                signal.signal(number, handler)
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _reason(error: Exception) -> str:
    """What Ray says, in one line; of a traceback of its server the last."""
    text = str(error).strip()
    return text.splitlines()[-1] if "Traceback" in text else " ".join(text.split())


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise GeneDMLError("--on ray takes Ray, which is not installed: pip install 'genedml[ray]'.") from error
    ray._private.worker.print_to_stdstream = _unsaid
    return ray


def _unsaid(*message: Any, **how: Any) -> None:
    """In place of what prints Ray's own words on dead workers to stdout, where results alone go."""


def _cluster_here(temporary: Path, gpus: bool) -> dict[str, Any]:
    """A cluster of this machine alone, of the processors and GPUs that this process was given."""
    return {
        "num_cpus": processors(),
        **({} if gpus else {"num_gpus": 0}),  # Ray counts those of CUDA_VISIBLE_DEVICES
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
        "_temp_dir": str(temporary),
    }


def processors() -> int:
    """How many processors this process was given: by SLURM, or else by the system."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    given = [os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")]
    return next((int(number) for number in given if number.isdecimal()), allowed)
