"""The connection to a Ray cluster: found or started, quiet, with every node at the versions of this program."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from asmk_engine.errors import AsmkError, DependencyError, InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.version import __version__

AUTO = "auto"
"""The cluster in RAY_ADDRESS, or the one that this machine belongs to, or else a new one of this machine alone."""
PACKAGES = ("ray", "numpy", "numba", "faiss-cpu", "openvino", "opencv-python-headless", "torch")
"""Packages whose version decides about bytes of features, words and codes."""
CONNECT_SECONDS = 5.0
PROBE_SECONDS = 120.0
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def import_ray() -> Any:
    """Return the package ray; DependencyError if it is not installed."""
    try:
        import ray
    except ImportError:
        raise DependencyError("ray is not installed; `pip install 'asmk-engine[ray]'`") from None
    return ray


def connect(address: str = AUTO) -> Any:
    """Connect this process to a cluster, unless it is connected already, and return the package ray.

    address  host:port of the head node, or AUTO
    Token authentication is Ray's: RAY_AUTH_MODE and the token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray.
    Raises InputError for an address that is none, NotFoundError if nothing answers there, MismatchError if a node has
    other versions, StorageError if Ray refuses.
    """
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    ray = import_ray()
    _keep_quiet()
    if not ray.is_initialized():
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        _check_address(address)
        _initialise(ray, address)
    _check_nodes(ray)
    return ray


def _keep_quiet() -> None:
    """Drop what Ray prints of lost processes: on standard output, where results go, and no setting stops it."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *data, **options: None


def _check_address(address: str) -> None:
    """Raise an error for an address where nothing listens, for which Ray itself would wait for minutes."""
    if address == AUTO:
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not (colon and host and port.isdecimal() and int(port) < 1 << 16):
        raise InputError(
            f"--ray {address}: expected host:port of the head node, such as 10.0.0.1:6379; run the command on a node "
            "of the cluster, or submit it with `ray job submit`"
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise NotFoundError(
            f"--ray {address}: no cluster answers there ({error.strerror or error}); start one with "
            f"`ray start --head --port {port}`, or check the address and the firewall"
        ) from None


def _initialise(ray: Any, address: str) -> None:
    where = os.environ.get("RAY_ADDRESS", "") if address == AUTO else address
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    try:
        with _silenced():
            try:
                ray.init(address=where or AUTO, **quiet)
            except ConnectionError:
                if where:
                    raise
                ray.init(include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and classes of its own
        raise _refusal(address, error) from None


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Send the standard error of this process nowhere: Ray's library writes warnings there that no setting stops."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _refusal(address: str, error: Exception) -> AsmkError:
    """Return what an error of `ray.init` means, in one line."""
    said = " ".join(str(error).split())
    if "ersion mismatch" in said:
        return MismatchError(f"--ray {address}: {said[:300]}; install the same versions on all nodes")
    if isinstance(error, ConnectionError) or "node_ip_address" in said or "raylet" in said.lower():
        return NotFoundError(
            f"--ray {address}: no cluster lets this process in ({said[:200]}); this machine must have joined it with "
            "`ray start --address HOST:PORT`; if it uses tokens, set RAY_AUTH_MODE=token and copy ~/.ray/auth_token of "
            "the head node here"
        )
    if "uthentication" in said or "token" in said.lower():
        return StorageError(
            f"--ray {address}: the cluster refused the token ({said[:200]}); set RAY_AUTH_MODE=token and copy "
            "~/.ray/auth_token of the head node here"
        )
    return StorageError(f"--ray {address}: Ray cannot connect ({type(error).__name__}: {said[:300]})")


def versions() -> dict[str, str]:
    """Return the versions here of this program, Python and the packages that decide about bytes; without builds."""
    found = {"asmk-engine": __version__, "python": ".".join(map(str, sys.version_info[:2]))}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package).split("+")[0]
    return found


def check_versions(expected: dict[str, str], node: str) -> None:
    """Raise MismatchError unless the versions of this process are those of the one that gave it work."""
    check_found(expected, versions(), node)


def check_found(expected: dict[str, str], found: dict[str, str], node: str) -> None:
    """Raise MismatchError unless versions found on a node are the expected ones."""
    other = [
        f"{key} {found.get(key, 'missing')} instead of {expected.get(key, 'none')}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    if other:
        raise MismatchError(f"node {node}: {', '.join(other)}; install the same versions on all nodes")


def _check_nodes(ray: Any) -> None:
    """Ask every node for its versions."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0, max_retries=3)(versions)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = {
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in nodes
    }
    expected = versions()
    for answer, node in asked.items():
        name = node["NodeManagerAddress"]
        try:
            with ray_errors(f"node {name}"):
                check_found(expected, ray.get(answer, timeout=PROBE_SECONDS), name)
        except StorageError:
            if node["NodeID"] in {other["NodeID"] for other in ray.nodes() if other["Alive"]}:
                raise


@contextlib.contextmanager
def ray_errors(doing: str) -> Iterator[None]:
    """Turn errors of Ray within the block into errors of one line; an error of this program comes back as it was."""
    from ray import exceptions

    try:
        yield
    except exceptions.RayTaskError as error:
        raise told(error, doing) from None
    except exceptions.RayError as error:
        raise told(error, doing) from None


def told(error: Exception, doing: str) -> Exception:
    """Return what an error of Ray means: the error of this program that a process raised, or one of one line."""
    from ray import exceptions

    cause = getattr(error, "cause", None)
    if isinstance(cause, AsmkError):
        return cause
    if isinstance(error, exceptions.RayTaskError):
        return _told_cause(error, cause, doing)
    said = " ".join(str(error).split())
    if isinstance(error, exceptions.ObjectStoreFullError | exceptions.OutOfDiskError):
        return StorageError(
            f"{doing}: the object store of a node is full and its disk too; free space below its temporary folder, "
            "start its node with a larger --object-store-memory, or use fewer actors; what was written is kept"
        )
    if isinstance(error, exceptions.GetTimeoutError):
        return StorageError(f"{doing}: no answer in time; look at the node with `ray status`")
    return StorageError(f"{doing}: {type(error).__name__}: {said[:300]}; look at the cluster with `ray status`")


def _told_cause(error: Exception, cause: object, doing: str) -> Exception:
    """Return what another error that a process of a node raised means; an unforeseen one keeps its trace."""
    from ray import exceptions

    said = " ".join(str(cause).split())
    if isinstance(cause, exceptions.RayError):
        return told(cause, doing)
    if isinstance(cause, ImportError):
        return DependencyError(f"{doing}: {said}; install asmk-engine with the same extras on all nodes")
    if isinstance(cause, OSError | MemoryError):
        return StorageError(f"{doing}: a node has a problem ({type(cause).__name__}: {said[:200]}); free space on it")
    return RuntimeError(str(error))
