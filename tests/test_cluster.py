"""The file for sbatch: bash takes it, and it runs one command on Ray over all nodes."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genedml.errors import GeneDMLError
from genedml_cli import app
from genedml_cli.machine.ray_executor import STORE_BYTES
from genedml_cli.machine.slurm import sbatch_file

RECORD = '#!/bin/bash\necho "$(basename "$0") $*" >> "$CALLS"\n'
STATUS = '[ "$1" = status ] && printf " 1 node_%s\\n" a b c d e\nexit 0\n'


def calls_of(script: str, folder: Path, **slurm: str) -> list[str]:
    """What the script calls in a job of SLURM, where programs note that they are called and do nothing."""
    for name in ("srun", "ray", "genedml"):
        (folder / name).write_text(RECORD + (STATUS if name == "ray" else ""))
        (folder / name).chmod(0o755)
    given = {"SLURM_JOB_ID": "123456", "CALLS": str(folder / "calls"), **slurm}
    programs = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment = ours | given | {"PATH": programs}
    done = subprocess.run(["bash"], input=script, text=True, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return (folder / "calls").read_text().splitlines()


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs bash")
def test_the_file_starts_ray_on_every_node_and_then_the_command(tmp_path):
    script = sbatch_file(["predict", "--slides", "my cohort.csv", "-o", "out"], nodes=3, gpus=4, cpus=8)
    for line in ("--nodes=3", "--gpus-per-node=4", "--cpus-per-task=8", "--ntasks-per-node=1"):
        assert f"#SBATCH {line}\n" in script
    calls = calls_of(script, tmp_path, SLURM_CPUS_PER_TASK="8", SLURM_GPUS_ON_NODE="4")
    head, others = (next(call for call in calls if word in call) for word in ("--head", "--exclude"))
    port = 20000 + 123456 % 10000
    assert f"--port={port} " in head and "--include-dashboard=false" in head
    assert (f"--ray-client-server-port={port + 10000}" in head) == (find_spec("grpc") is not None)
    assert "--nodes=2 --ntasks=2" in others and f":{port}" in others
    assert all("--num-cpus=8 --num-gpus=4" in call and "--disable-usage-stats" in call for call in (head, others))
    assert all(f"--object-store-memory={STORE_BYTES} " in f"{call} " for call in (head, others))
    assert head.endswith("--temp-dir=/tmp/ray-123456")
    assert calls[-1] == "genedml predict --slides my cohort.csv -o out --on ray"
    assert "'my cohort.csv'" in script
    assert "TOKEN" not in "".join(calls)


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize(
    ("slurm", "resources", "others"),
    [
        ({"SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "2"}, "--num-cpus=8 --num-gpus=2 ", 2),
        ({"SLURM_JOB_NUM_NODES": "5"}, "--num-cpus=16 --num-gpus=4 ", 4),
        ({}, "--num-cpus=16 --num-gpus=4 ", 2),
    ],
    ids=["other cores", "other nodes", "those of the file"],
)
def test_ray_has_the_nodes_cores_and_gpus_that_slurm_gave(tmp_path, slurm, resources, others):
    calls = calls_of(sbatch_file(["train", "-o", "run"], nodes=3, gpus=4, cpus=16), tmp_path, **slurm)
    assert [resources in call for call in calls if "srun" in call] == [True, True]
    assert sum(f"--nodes={others} --ntasks={others} --exclude" in call for call in calls) == 1


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs bash")
def test_one_node_without_gpus_and_what_cannot_be_spread(tmp_path):
    script = sbatch_file(["train", "-o", "runs/mine"], nodes=1, gpus=0, cpus=8)
    assert "--gpus-per-node" not in script
    assert sum("srun" in call for call in calls_of(script, tmp_path)) == 1
    for words in ([], ["report", "x.h5ad"], ["train", "--on", "2"], ["train", "--on=gpus"]):
        with pytest.raises(GeneDMLError, match=r"--(on)?"):
            sbatch_file(words, 1, 0, 8)


def test_the_command_prints_it_and_no_more():
    words = ["cluster", "slurm", "--nodes", "2", "--", "predict", "--slides", "cohort.csv", "-o", "out"]
    shown = CliRunner().invoke(app.app, words)
    assert shown.exit_code == 0
    assert shown.stdout == sbatch_file(words[5:], 2, 0, 16)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predict", "--slide", "cohort.csv"], r"No such option: --slide.*--slides"),
        (["compare", "--seeds", "many", "-o", "out"], r"Invalid value for '--seeds'.*integer"),
        (["compare"], r"Missing option '--out'"),
    ],
    ids=["option", "value", "missing"],
)
def test_a_command_that_would_not_run_is_refused_before_its_job_waits(words, sentence):
    shown = CliRunner().invoke(app.app, ["cluster", "slurm", "--", *words])
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert re.search(sentence, " ".join(shown.stderr.replace("│", " ").split()))


@pytest.mark.parametrize(
    ("words", "told"),
    [(["predit"], "can be spread after --: predict"), (["data"], "can be spread"), (["predict", "--help"], "--slides")],
    ids=["no command", "others", "help"],
)
def test_what_is_no_job_stays_out_of_its_file(words, told):
    shown = CliRunner().invoke(app.app, ["cluster", "slurm", "--", *words])
    assert shown.stdout == ""
    assert told in f"{shown.stderr} {shown.exception}"
