"""Which cluster this process belongs to, and the one call that joins it."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any, Literal

import jax

from svlm_jax.errors import ConfigError
from svlm_jax.host.files import one_sentence

logger = logging.getLogger(__name__)

# Set by launch.local for every process that it starts.
COORDINATOR, PROCESSES, PROCESS, LOCAL_DEVICES = (
    "JAX_COORDINATOR_ADDRESS",
    "SVLM_NUM_PROCESSES",
    "SVLM_PROCESS_ID",
    "JAX_LOCAL_DEVICE_IDS",
)
HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead

Kind = Literal["alone", "launched", "slurm", "kubernetes", "openmpi"]


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where this process runs; `arguments` are those of `jax.distributed.initialize`, which finds out the rest by itself."""

    kind: Kind
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


def detect(environment: Mapping[str, str]) -> Cluster:
    """The cluster that the environment speaks of. What launch.local has set comes before what a scheduler has."""
    if PROCESSES in environment:
        return _launched(environment)
    if "SLURM_JOB_ID" in environment and _count(environment, "SLURM_NTASKS") > 1:
        if "SLURM_STEP_NODELIST" not in environment or "SLURM_PROCID" not in environment:
            raise ConfigError(
                f"this is in a Slurm job of {environment['SLURM_NTASKS']} tasks (SLURM_NTASKS), but not started by srun, which "
                f"starts one process a task: expected `srun python -m launch.train ...`, or `svlm train` for one process alone."
            )
        _count(environment, "SLURM_PROCID")
        return Cluster("slurm")
    if _count(environment, "OMPI_COMM_WORLD_SIZE") > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environment or "OMPI_COMM_WORLD_RANK" not in environment:
            raise ConfigError(
                f"OMPI_COMM_WORLD_SIZE is {environment['OMPI_COMM_WORLD_SIZE']}, but the address of the other processes "
                f"(OMPI_MCA_orte_hnp_uri) is not set: expected a start by mpirun of Open MPI up to 4, or by launch.local."
            )
        return Cluster("openmpi")
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return Cluster("kubernetes")
    return Cluster("alone")


def _count(environment: Mapping[str, str], name: str) -> int:
    """A whole number that a scheduler has set; 1 if it has not, ConfigError if it is none."""
    text = environment.get(name, "1")
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}, expected a whole number, or that it is not set.")
    return int(text)


def join(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Joins the cluster, before anything else touches a device; does nothing for a process that is alone."""
    cluster = detect(environment)
    if cluster.kind != "alone":
        # Runs listen for SIGTERM themselves (svlm_jax.train.preemption); before they do, it should end the process.
        jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT, **cluster.arguments)
        except (ValueError, KeyError, RuntimeError) as error:  # addresses that are none, and processes that do not come
            raise ConfigError(
                f"the processes of this {cluster.kind} run do not find each other: {one_sentence(error)}."
            ) from error
        logger.info("process %d of %d (%s)", jax.process_index(), jax.process_count(), cluster.kind)
    return cluster


def leave(cluster: Cluster) -> None:
    """Says goodbye, so that the others do not take the end of this process for a failure."""
    if cluster.kind != "alone":
        jax.distributed.shutdown()


def _launched(environment: Mapping[str, str]) -> Cluster:
    missing = [name for name in (COORDINATOR, PROCESS) if name not in environment]
    if missing:
        raise ConfigError(f"{PROCESSES} is set, but {' and '.join(missing)} not: launch.local sets all of them.")
    try:
        arguments: dict[str, Any] = {
            "coordinator_address": environment[COORDINATOR],
            "num_processes": int(environment[PROCESSES]),
            "process_id": int(environment[PROCESS]),
        }
        if LOCAL_DEVICES in environment:
            arguments["local_device_ids"] = [int(number) for number in environment[LOCAL_DEVICES].split(",")]
    except ValueError as error:
        raise ConfigError(f"{PROCESSES}, {PROCESS} and {LOCAL_DEVICES} must be whole numbers: {error}.") from error
    return Cluster("launched", arguments)
