"""The example of retries: its worker prints every signal, and its files fit together."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parents[2] / "examples" / "retry_task"


@pytest.mark.faults
def test_the_demo_prints_every_signal_of_each_attempt() -> None:
    command = [sys.executable, str(HERE / "demo.py")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()

    def said(signal: str) -> list[str]:
        """The signals of this name: task and attempt."""
        form = re.compile(rf"worker    {signal} +(\w+ (?:at )?attempt \d)")
        return sorted(found[1] for line in lines if (found := form.match(line)))

    assert said("prerun") == [
        "charge attempt 0", "charge attempt 1", "charge attempt 2", "charge attempt 3", "close attempt 0",
        "refund attempt 0", "refund attempt 1", "settle attempt 0", "settle attempt 1",
    ]  # fmt: skip
    assert said("retry") == [
        "charge attempt 1", "charge attempt 2", "charge attempt 3", "refund attempt 1", "settle attempt 1",
    ]  # fmt: skip
    assert said("failed") == ["close at attempt 0", "settle at attempt 1"]
    assert said("succeeded") == ["charge at attempt 3", "refund at attempt 1"]
    asked = [line.rpartition("after ")[2] for line in lines if line.startswith("worker    strategy")]
    assert sorted(asked) == ["0.1 s", "0.1 s", "0.2 s", "0.4 s", "2.0 s"]
    assert "producer  refund has succeeded: refunded" in lines
    assert sum(line.startswith("producer  dead letter: ") for line in lines) == 2
    # A delay ends by the store's clock: no attempt starts before it is due.
    late = [int(found[1]) for line in lines if (found := re.search(r", (-?\d+) ms after it was due", line))]
    assert len(late) == 5
    assert min(late) >= -50  # the worker estimates the clock of the store


def test_the_containers_name_files_and_services_that_exist() -> None:
    services = yaml.safe_load((HERE / "compose.yaml").read_text())["services"]
    assert set(services) == {"server", "worker", "producer"}
    for name in ("worker", "producer"):
        assert set(services[name]["depends_on"]) <= set(services)
        assert services[name]["environment"]["STEMFLOW_STORE"].startswith("redis://server:6379/")
    root = (HERE / services["worker"]["volumes"][0].partition(":")[0]).resolve()
    assert (root / "pyproject.toml").exists()
    assert "--tasks tasks" in services["worker"]["command"][2]
    assert services["producer"]["command"][2].endswith("python producer.py")
    assert {"tasks.py", "producer.py", "demo.py"} <= {one.name for one in HERE.iterdir()}
