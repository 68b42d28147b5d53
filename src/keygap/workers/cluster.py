"""The connection to Ray: a cluster that exists, or one that is started on this machine.

``RAY_ADDRESS``, the variable that Ray itself reads and ``ray job submit`` sets, names a cluster.
Without it Ray is started here for the time of the work: it listens on the loopback interface alone,
has no dashboard and sends no usage statistics, and it ends with this process, even if that is
killed.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from keygap import interrupts
from keygap.errors import UserError
from keygap.temporary import temporary_folder
from keygap.text import LONGEST, first_line

ADDRESS = "RAY_ADDRESS"
NAME_A_CLUSTER = f"set {ADDRESS} to the HOST:PORT of a running cluster, or unset it"
REACHED_IN = 5.0  # seconds
# Within so many seconds the GPUs of workers that have ended count as free: the processes take a
# moment to end, and Ray reports ten times a second what is free.
FREED_IN = 5.0
LONGEST_FOLDER = 28  # characters; Ray puts sockets below it, whose paths have at most 107
# Of Ray's object store here. Results are small; Ray writes to disk what does not fit.
STORE_BYTES = 200 * 2**20
# What Ray reads from the environment where it is started here.
# RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 makes Ray use the loopback interface on Linux, as it does by
# itself on macOS and Windows; see ``_on_loopback``.
CONNECTED = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
OWN = {**CONNECTED, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
logger = logging.getLogger("keygap")


@dataclass(frozen=True)
class Room:
    """What a piece of work takes of a cluster.

    Attributes:
        workers: how many.
        options: of each actor.
    """

    workers: int
    options: dict[str, Any]


def imported() -> Any:
    """The package ray, imported on first use: that takes a second."""
    import ray

    return ray


@contextmanager
def connected(workers: int | None) -> Iterator[None]:
    """Be connected to Ray in a block. A connection that exists is used and stays.

    Args:
        workers: how many single-thread workers a Ray that is started here has room for at least.

    Raises:
        UserError: the cluster cannot be reached, or Ray cannot be started here.
    """
    address = os.environ.get(ADDRESS, "")
    with ExitStack() as stack:
        stack.enter_context(_environment(CONNECTED if address else OWN))
        ray = imported()
        if not ray.is_initialized():
            stack.enter_context(_quiet())
            stack.callback(ray.shutdown)
            if address:
                _refuse_unreachable(address)
                what = f"the Ray cluster at {address} cannot be reached"
                _begin({"address": address}, what, NAME_A_CLUSTER)
            else:
                stack.enter_context(interrupts.tidied())
                stack.enter_context(_on_loopback())
                folder = stack.enter_context(temporary_folder(_short_folder()))  # sockets and logs
                stack.callback(ray.shutdown)  # before its folder is removed
                here = {
                    "address": "local",
                    "num_cpus": max(workers or 1, os.cpu_count() or 1),
                    "object_store_memory": STORE_BYTES,
                    "_temp_dir": str(folder),
                }
                _begin(here, "Ray cannot be started here", "use the engine local")
        yield


def room(workers: int | None, gpus: int) -> Room:
    """How many workers there are, and what each takes, so that they share the cluster.

    Args:
        workers: how many; None means one for each ``gpus`` GPUs that nobody has reserved, or for
            each node. GPUs that become free within a few seconds are waited for.
        gpus: of each worker.

    Raises:
        UserError: no node has so many GPUs.
    """
    nodes = [node["Resources"] for node in imported().nodes() if node["Alive"]]
    usable = [node for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU", 0) >= 1]
    if not usable:
        with_cpu = [node.get("GPU", 0) for node in nodes if node.get("CPU", 0) >= 1]
        most = int(max(with_cpu, default=0))
        raise UserError(
            f"a worker needs {gpus} GPUs and a CPU, and no node of the Ray cluster that has a CPU "
            f"has more than {most} GPUs: give fewer with --gpus-per-worker, or hide the GPUs from "
            "the command with CUDA_VISIBLE_DEVICES="
        )
    places = [int(node["GPU"] // gpus) if gpus else 1 for node in usable]
    most = sum(places)
    number = workers or max(1, min(most, _free(gpus, most) if gpus else most))
    if gpus and number > most:
        logger.warning(
            "there are GPUs for %d workers and not for %d: the others wait until there is room",
            *(most, number),
        )
    share = math.ceil(number / len(usable))
    cpus = min(
        int(node["CPU"]) // (place if gpus else share)
        for node, place in zip(usable, places, strict=True)
    )
    return Room(
        number, {"num_cpus": max(1, cpus), "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
    )


def _free(gpus: int, most: int) -> int:
    """How many workers would find GPUs that nobody has reserved.

    Args:
        gpus: of each worker.
        most: how many would find them if none were reserved.
    """
    deadline = time.monotonic() + FREED_IN
    while True:
        unreserved = imported().available_resources().get("GPU", 0)
        free = int(unreserved // gpus)
        if free >= most:
            return free
        if time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    every = imported().cluster_resources().get("GPU", 0)
    logger.info("%d of %d GPUs are reserved", every - unreserved, every)
    return free


def _begin(options: Mapping[str, Any], failure: str, remedy: str) -> None:
    """Connect, or start Ray. keygap's handling of signals stays as it is.

    Raises:
        UserError: it failed.
    """
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    try:
        imported().init(
            **options,
            include_dashboard=None if "num_cpus" not in options else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{failure} ({first_line(error, LONGEST)}): {remedy}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _refuse_unreachable(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes.

    Raises:
        UserError: it is one, or an address of the Ray Client.
    """
    if "://" in address:
        raise UserError(
            f"{ADDRESS} is {address}, and the Ray Client cannot be used: run keygap on a node of "
            f"the cluster, by ray job submit for example, or {NAME_A_CLUSTER}"
        )
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):  # "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_IN).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"the Ray cluster at {address} cannot be reached ({error}): {NAME_A_CLUSTER}"
        ) from error


def _short_folder() -> str:
    """A folder for temporary files whose path is short enough for Ray."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= LONGEST_FOLDER else "/tmp"


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Start Ray on the loopback interface also if it was imported before ``OWN`` was set."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray from printing that a worker died, which the caller says in one line.

    Ray prints it to standard output, where the result of a command belongs, and has no option that
    prevents it.
    """
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Have settings in the environment in a block, unless the user has set them."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
