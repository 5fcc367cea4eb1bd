"""Rights are given up in a child process that started as root, then looked at from within."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give something up")

UID: Final = 47399
NET_ADMIN: Final = 1 << 12
BARE: Final = """
import ctypes
from gateway.system import privileges
for cap in set(range(41)) - {6, 7, 12}:  # as in the container: no CAP_SETPCAP
    ctypes.CDLL(None).prctl(24, cap, 0, 0, 0)
privileges._set_capabilities(frozenset({6, 7, 12}))
privileges._prctl(47, 4)
"""
LOOK: Final = """
import json, os, resource, socket, subprocess
lines = open("/proc/self/status").read().splitlines()
status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
"""


def child(*code: str) -> Any:
    """Run these lines as root in a new process; what it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("before", ["", BARE], ids=["all", "bare"])
@pytest.mark.parametrize("keep", [0, NET_ADMIN], ids=["nothing", "net-admin"])
def test_what_is_left_is_what_was_asked(before: str, keep: int) -> None:
    kept = "{CAP_NET_ADMIN}" if keep else ""
    status = child(
        before,
        LOOK,
        "from gateway.system.privileges import *",
        "from gateway.system.privileges import CAP_NET_ADMIN",
        f"drop_to({UID}, {UID}, frozenset({kept}))",
        LOOK,
        "print(json.dumps(status))",
    )
    assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"].split() == []
    assert status["NoNewPrivs"] == "1"
    for field in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(status[field], 16) == keep, field


def test_there_is_no_way_back_and_no_trace_to_read() -> None:
    facts = child(
        LOOK,
        "from gateway.system.privileges import drop_to",
        f"drop_to({UID}, {UID})",
        "facts = {'core': resource.getrlimit(resource.RLIMIT_CORE)}",
        "try: os.setuid(0)",
        "except PermissionError: facts['root'] = 'refused'",
        "try: open('/proc/self/mem', 'rb')",
        "except PermissionError: facts['memory'] = 'refused'",
        "print(json.dumps(facts))",
    )
    assert facts == {"core": [0, 0], "root": "refused", "memory": "refused"}


def test_a_user_that_stays_the_same_is_not_dumpable_either() -> None:
    """A change of user alone would see to it; here there is none."""
    status = child(
        "from gateway.system import privileges",
        "privileges.drop_to(0, 0)",
        LOOK,
        "status['dumpable'] = privileges._prctl(3)",
        "print(json.dumps(status))",
    )
    assert status["dumpable"] == 0
    assert int(status["CapPrm"], 16) == 0


def test_a_capability_that_is_not_there_is_refused_in_one_line() -> None:
    message = child(
        BARE,
        "import json",
        "from gateway.errors import GatewayError",
        "from gateway.system.privileges import drop_to",
        f"try: drop_to({UID}, {UID}, frozenset({{21}}))",
        "except GatewayError as error: print(json.dumps(str(error)))",
    )
    assert message.startswith("privileges: cannot keep the capabilities [21]: Operation not")
    assert "\n" not in message


def test_who_is_not_root_cannot_drop() -> None:
    message = child(
        "import json, os",
        "from gateway.errors import GatewayError",
        "from gateway.system.privileges import drop_to",
        f"os.setuid({UID})",
        "try: drop_to(1, 1)",
        "except GatewayError as error: print(json.dumps(str(error)))",
    )
    assert message.startswith("privileges: cannot become uid 1, gid 1: Operation not permitted;")


def test_a_result_that_is_not_what_was_asked_is_refused() -> None:
    """The kernel is asked at the end; suppose a step did nothing."""
    message = child(
        "import json",
        "from gateway.errors import GatewayError",
        "from gateway.system import privileges",
        "privileges._set_capabilities = lambda keep: None",
        f"try: privileges.drop_to({UID}, {UID}, frozenset({{12}}))",
        "except GatewayError as error: print(json.dumps(str(error)))",
    )
    assert "refusing to run with more rights than asked" in message


def test_threads_would_keep_their_rights_and_are_refused() -> None:
    message = child(
        "import json, threading",
        "from gateway.errors import GatewayError",
        "from gateway.system import privileges",
        "stop = threading.Event(); threading.Thread(target=stop.wait).start()",
        f"try: privileges.drop_to({UID}, {UID})",
        "except GatewayError as error: print(json.dumps(str(error)))",
        "finally: stop.set()",
    )
    assert "more than one thread" in message


def test_exactly_one_new_descriptor_fits() -> None:
    """Also with holes below the highest; and it fits again after a close."""
    facts = child(
        LOOK,
        "from gateway.system.privileges import drop_to, forbid_new_descriptors",
        "os.dup2(0, 30); os.dup2(0, 20)",
        f"drop_to({UID}, {UID})",
        "forbid_new_descriptors()",
        "facts = []",
        "for _ in range(2):",
        "    one = os.dup(0); facts.append(one)",
        "    try: os.dup(0)",
        "    except OSError as error: facts.append(error.strerror)",
        "    os.close(one)",
        "for call in (os.fork, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))):",
        "    try: call()",
        "    except (OSError, ValueError) as error: facts.append('refused')",
        "os.write(1, json.dumps(facts).encode())",
    )
    assert facts == [31, "Too many open files", 31, "Too many open files", "refused", "refused"]
