"""The start scripts in docs/distributed.md produce the TF_CONFIG that TensorFlow expects."""

import json
import os
import re
import subprocess
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "distributed.md"


def tf_config_of(lines: str, folder: Path, **environment: str) -> dict:
    """TF_CONFIG after running the two lines that set it."""
    scontrol = folder / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$3" = "n[1-2]" ] && printf "n1\\nn2\\n"\n')
    scontrol.chmod(0o755)
    done = subprocess.run(
        ["bash", "-ec", lines + '\nprintf "%s" "$TF_CONFIG"'],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_tf_config(tmp_path):
    slurm, kubernetes = re.findall(
        r"^ *(hosts=.*\n *export TF_CONFIG=.*)$", DOCUMENT.read_text(), re.MULTILINE
    )
    slurm_config = tf_config_of(slurm, tmp_path, SLURM_JOB_NODELIST="n[1-2]", SLURM_PROCID="1")
    assert slurm_config == {
        "cluster": {"worker": ["n1:5000", "n2:5000"]},
        "task": {"type": "worker", "index": 1},
    }
    assert tf_config_of(kubernetes, tmp_path, JOB_COMPLETION_INDEX="3") == {
        "cluster": {"worker": [f"fit-{index}.fit:5000" for index in range(4)]},
        "task": {"type": "worker", "index": 3},
    }
