"""Ray on loopback: what its workers make is what one process makes, whichever of them die."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import tiny_config
from deadly import TinyTask
from jobs import do, place_of, seen_from
from test_ablation import contents
from test_cohort import write_broken, write_good, write_sheet
from test_shards import results

from genedml.errors import GeneDMLError
from genedml_cli.cohort import cohort
from genedml_cli.cohort.slide import KEPT, PREDICTED
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.machine.compute import Compute
from genedml_cli.machine.crew import Failed
from genedml_cli.machine.executors import executor
from genedml_cli.machine.ray_executor import LOOPBACK, QUIET, STORE_BYTES, processors
from genedml_cli.runs.ablation import ablate
from genedml_cli.runs.planning import RunSettings
from genedml_cli.runs.run import train_with

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'genedml[ray]'"),
]
HERE = Path(__file__).parent
NO_PAGES = "--modules-to-load=UsageStatsHead"
"""What Ray's dashboard is begun with where it is off; it then serves no page, and sends nothing where usage is off."""
NODE = {"include_dashboard": False, "object_store_memory": STORE_BYTES, "num_gpus": 0}


@pytest.fixture(scope="module")
def cluster():
    """A head without processors and two nodes with one each, on loopback, which RAY_ADDRESS names; and its ray://."""
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as free:
        patch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")  # with it, Ray's server for clients dies as it begins
        for name in (*QUIET, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
            patch.setenv(name, {**QUIET, **LOOPBACK}[name])
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *sys.path]))
        from ray.cluster_utils import Cluster

        port = free.getsockname()[1]
        free.close()
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "ray_client_server_port": port, **NODE})
        nodes.client = f"ray://127.0.0.1:{port}"
        for _ in range(2):
            nodes.add_node(num_cpus=1, **NODE)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


def workers() -> list[psutil.Process]:
    """The processes of the actors."""
    below = psutil.Process().children(recursive=True)
    alive = [process for process in below if process.status() != psutil.STATUS_ZOMBIE]
    return [process for process in alive if any("ray::_Actor" in word for word in process.cmdline()[:1])]


def test_a_run_and_an_ablation_of_three_folds_are_those_made_here(cluster, world, tmp_path, monkeypatch):
    samples, config = read_sheet(world / "samples.csv"), tiny_config()
    monkeypatch.chdir(tmp_path)
    for folder, on in (("here", "here"), ("ray", cluster.client)):
        settings = RunSettings(features=Path("features"), compute=Compute("cpu"), on=on)
        ablate(samples, Path(folder), "k", config, (3, 4), 1, settings)
        train_with(samples, Path(folder, "run"), config, settings)
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    assert len(list((tmp_path / "ray").rglob("fold-*.safetensors"))) == 9


def test_errors_are_raised_here_and_what_kills_every_worker_fails_alone(cluster, capsys, tmp_path, monkeypatch):
    engine = executor(cluster.client, Compute("cpu"))
    done = list(engine.run(place_of, do, ["killed", "a", "b"]))
    (failed,) = [one for one in done if isinstance(one, Failed)]
    assert failed.job == "killed" and "the last of 3 workers" in failed.reason
    assert capsys.readouterr().err.count("its job is given to another") == 2
    assert sorted(one[0] for one in done if not isinstance(one, Failed)) == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out", "seen").write_text("by all")
    assert list(engine.run(place_of, seen_from, [Path("out/seen")])) == [(tmp_path / "out" / "seen", "by all")]
    with pytest.raises(GeneDMLError, match=f"{socket.gethostname()} does not see in /only/here what") as raised:
        list(engine.run(place_of, seen_from, [Path("/only/here/seen")]))
    assert f"This was on {socket.gethostname()}." in raised.value.__notes__


def test_a_cohort_loses_a_worker_and_a_node_and_is_that_predicted_here(cluster, quick_run, tmp_path, monkeypatch):
    broken = dict(list(write_broken(tmp_path).items())[:2])
    rows = {f"s{number}": write_good(tmp_path, number) for number in range(10)}
    sheet = write_sheet(tmp_path, {name: row for name, (row, _) in broken.items()} | rows)
    monkeypatch.setattr(cohort, "CohortTask", TinyTask)
    monkeypatch.chdir(tmp_path)
    sheet = sheet.relative_to(tmp_path)
    cohort.predict_cohort(sheet, quick_run, Path("here"), fold="P1", compute=Compute("cpu"))
    heard, append = [], cohort._append_log

    def disturb(path, outcome):
        heard.append(outcome.name)
        if len(heard) == 2:
            os.kill(workers()[0].pid, signal.SIGKILL)
        if len(heard) == 6:
            cluster.remove_node(cluster.list_all_nodes()[-1])
        append(path, outcome)

    monkeypatch.setattr(cohort, "_append_log", disturb)
    done = cohort.predict_cohort(sheet, quick_run, Path("ray"), fold="P1", compute=Compute("cpu"), on="ray")
    assert sorted(heard) == sorted([*rows, *broken])
    assert {one.name for one in done.outcomes if one.state == PREDICTED} == set(rows)
    assert results(tmp_path / "ray") == results(tmp_path / "here")
    tables = [pd.read_csv(tmp_path / folder / "summary.csv").drop(columns="minutes") for folder in ("ray", "here")]
    tables[0]["problem"] = tables[0]["problem"].str.replace(f"{tmp_path}/", "")  # workers know absolute paths alone
    pd.testing.assert_frame_equal(*tables)
    again = cohort.predict_cohort(sheet, quick_run, Path("ray"), fold="P1", compute=Compute("cpu"), on="here")
    assert {one.name for one in again.outcomes if one.state == KEPT} == set(rows)


def test_a_cluster_of_this_machine_listens_on_loopback_alone_and_ends_within_seconds_of_ctrl_c(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "SLURM_CPUS_PER_TASK": "8"}
    call = [sys.executable, HERE / "lingering.py", tmp_path, "ray"]
    with subprocess.Popen([*map(str, call)], env=environment, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not all((tmp_path / f"{job}.pid").exists() for job in "ab"):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.2)
        below = psutil.Process(process.pid).children(recursive=True)
        assert listened_at(below) == {"127.0.0.1"}
        words = [each.cmdline() for each in below]
        assert [word for line in words for word in line if word.startswith("--modules-to-load")] == [NO_PAGES]
        temporary = {match for line in words for match in re.findall(r"/tmp/ray-[^/ ]+", " ".join(line))}
        assert len(temporary) == 1 and all(map(os.path.exists, temporary))
        raylets = [each for each in below if each.name() == "raylet"]  # others write their title over their environment
        assert [each.environ().get("RAY_USAGE_STATS_ENABLED") for each in raylets] == ["0"]
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.splitlines()[-1]) == (130, "Stopped. All is kept.")
    assert time.monotonic() - began < 15  # two where nothing else runs
    assert not psutil.wait_procs(below, 15)[1]
    assert not any(map(os.path.exists, temporary))


def listened_at(processes: list[psutil.Process]) -> set[str]:
    """The addresses at which any of the processes listens."""
    addresses = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            addresses |= {
                each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN
            }
    return {address.removeprefix("::ffff:") for address in addresses}


def test_processors_are_those_that_slurm_gave(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert processors() == 6
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5})
    assert processors() == 3
