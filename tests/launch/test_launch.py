"""Detection of clusters, flags, the supervisor, and the files for schedulers."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from launch import cluster, flags, local
from launch.train import PREEMPTED
from svlm_jax.errors import ConfigError

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, "alone"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, "alone"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "n[1-2]"}, "slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}, "openmpi"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "alone"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}, "kubernetes"),
    ],
)
def test_clusters_are_recognised(environment: dict[str, str], kind: str) -> None:
    assert cluster.detect(environment) == cluster.Cluster(kind)


def test_what_the_launcher_says_comes_first() -> None:
    environment = {
        "SLURM_NTASKS": "16",
        "SLURM_PROCID": "3",
        "SVLM_NUM_PROCESSES": "8",
        "SVLM_PROCESS_ID": "2",
        "JAX_COORDINATOR_ADDRESS": "host:1",
        "JAX_LOCAL_DEVICE_IDS": "2",
    }
    wanted = {"coordinator_address": "host:1", "num_processes": 8, "process_id": 2, "local_device_ids": [2]}
    assert cluster.detect(environment) == cluster.Cluster("launched", wanted)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "not started by srun"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "", "SLURM_PROCID": "0"}, "SLURM_NTASKS is '', expected a whole number"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "expected a start by mpirun"),
        ({"OMPI_COMM_WORLD_SIZE": "x"}, "OMPI_COMM_WORLD_SIZE is 'x', expected a whole number"),
        ({"SVLM_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS and SVLM_PROCESS_ID not"),
        ({"SVLM_NUM_PROCESSES": "2", "SVLM_PROCESS_ID": "a", "JAX_COORDINATOR_ADDRESS": "h:1"}, "must be whole numbers"),
    ],
)
def test_half_a_launch_is_an_error(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cluster.detect(environment)


def test_flags_of_every_gpu_are_known_and_unknown_ones_are_left_out() -> None:
    ours = sorted({flag for some, _ in flags.SETS.values() for flag in some})
    accepted, unknown = flags.check([*ours, "--xla_gpu_no_such_flag=1"])
    assert accepted == ours
    assert unknown == ["--xla_gpu_no_such_flag=1"]


def test_flags_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="there are no flags for 'gt640'"):
        flags.environment("gt640")
    with pytest.raises(ConfigError, match="end the process"):
        flags.check(["--xla_gpu_all_reduce_combine_threshold_bytes=much"])


def _group(*codes: str) -> local.Group:
    commands = [[sys.executable, "-c", code] for code in codes]
    return local.Group(commands, [{} for _ in commands])


def test_group_ends_with_the_worst_and_stops_the_others() -> None:
    assert _group("", "").run() == 0
    assert _group(f"exit({PREEMPTED})", "").run() == PREEMPTED
    assert _group("import time; time.sleep(60)", "exit(7)").run() in (7, -15)


def test_sigterm_before_there_is_anything_to_save_is_a_preemption() -> None:
    group = _group("import time; time.sleep(60)", "import time; time.sleep(60)")
    threading.Timer(0.3, group.terminate).start()
    assert group.run() == PREEMPTED


@pytest.mark.parametrize(("code", "attempts"), [(0, 1), (2, 1), (7, 3), (PREEMPTED, 3)])
def test_restarts(tmp_path: Path, code: int, attempts: int) -> None:
    count = tmp_path / "count"
    said: list[str] = []
    group = _group(f"open({str(count)!r}, 'a').write('x'); exit({code})")
    assert local.supervise(group, 2, said.append, pause=0.01) == code
    assert count.read_text() == attempts * "x"
    assert len(said) == attempts - 1


def test_sigterm_ends_the_wait_for_a_restart() -> None:
    group = _group("exit(7)")
    begin = time.monotonic()
    assert local.supervise(group, 3, lambda _: threading.Timer(0.1, group.terminate).start(), pause=600.0) == 7
    assert time.monotonic() - begin < 100


def test_processes_know_their_place_on_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[local.Group] = []
    monkeypatch.setattr(local, "supervise", lambda group, *_, **__: seen.append(group) or 0)
    monkeypatch.setattr(local.signal, "signal", lambda *_: None)
    node = ["--processes", "8", "--nodes", "2", "--node", "1", "--coordinator", "n0:1234", "--one-device-each"]
    assert local.main([*node, "--", "configs/tiny.py", "loop.steps=1"]) == 0
    (group,) = seen
    assert group.commands[0][1:] == ["-m", "launch.train", "configs/tiny.py", "loop.steps=1"]
    places = [cluster.detect(environment).arguments for environment in group.environments]
    assert [place["process_id"] for place in places] == list(range(8, 16))
    assert all(place["num_processes"] == 16 and place["coordinator_address"] == "n0:1234" for place in places)
    assert [place["local_device_ids"] for place in places] == [[i] for i in range(8)]


def test_several_nodes_need_a_coordinator(capsys: pytest.CaptureFixture[str]) -> None:
    assert local.main(["--nodes", "2", "--", "configs/tiny.py"]) == 2
    assert "need a --coordinator" in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("slurm/*")), ids=lambda path: path.name)
def test_batch_scripts_are_shell(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    assert "--requeue" in text and "--signal=" in text and "JAX_COMPILATION_CACHE_DIR" in text


def test_jobset_is_one_pod_a_node_and_restarts_after_preemption() -> None:
    (jobset,) = yaml.safe_load_all((LAUNCH / "k8s" / "jobset.yaml").read_text())
    assert jobset["kind"] == "JobSet"
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 300
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    command = " ".join(container["command"])
    assert "--processes 8" in command and f"--nodes {spec['completions']}" in command
    codes = [rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [PREEMPTED] in codes
