"""The `lab` command: argv -> command (`commands.py`). The only place of the lab that exits.

Exit codes: 0 pass, 1 something failed, 2 unusable input or environment, 3 warnings, 130
interrupted; `lab exec` returns the command's own. Every option is an environment variable too.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from lab import __version__, commands
from lab.attacks import request as attack
from lab.bench import request as bench
from lab.commands import Options
from lab.engines import NAMES
from lab.errors import LabError, NotHealthyError
from lab.evaluate import request as evaluate
from lab.soak import request as soak
from lab.topology import DEFAULT_NAME, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EPILOG: Final = """\
every option is an environment variable too:
  ENGINE, LAB_NAME, LAB_FILE, LAB_SITES, LAB_WITH, LAB_WITHOUT, LAB_FORMAT, LAB_TIMEOUT, LAB_JUNIT,
  LAB_ONLY, LAB_BETWEEN, LAB_ATTACK_SUITE, and for bench
  LAB_BENCH_ONLY, _PROFILES, _MEASURES, _ROUNDS, _SECONDS, _OUTPUT, _README;
  for evaluate LAB_EVALUATE_ONLY, _ROUNDS, _SECONDS, _OUTPUT;
  for soak LAB_SOAK_MINUTES, _REKEY_EVERY, _SEED
exit codes: 0 pass, 1 failed, 2 unusable input or environment, 3 warnings, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ["PATH"] = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"  # after `su`
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except NotHealthyError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except PermissionError as error:
        print(f"lab: {error.filename}: {error.strerror}; run as root", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("LAB_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"lab: a fault of the lab itself: {what}; LAB_DEBUG=1 shows where", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lab: interrupted; `lab down` removes what is there", file=sys.stderr)
        return 130


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _run(words: list[str]) -> int:
    arguments = _parser().parse_args(words)
    command: Callable[[Options], int] = arguments.command
    return command(_options(arguments))


def _options(arguments: argparse.Namespace) -> Options:
    """Validate what argparse does not: values that came from the environment, too."""
    if arguments.format not in {"table", "json"}:
        raise LabError(f"--format: {arguments.format!r} is no format; use table or json")
    timeout = None
    if arguments.timeout is not None:
        try:
            timeout = float(arguments.timeout)
        except ValueError:
            timeout = 0
        if not 0 < timeout < 86_400:
            raise LabError(f"--timeout: {arguments.timeout!r} is no number of seconds above 0")
    if arguments.engine and arguments.engine not in NAMES:
        raise LabError(
            f"--engine: no engine is called {arguments.engine!r}; use {' or '.join(NAMES)}"
        )
    sites = getattr(arguments, "sites", None)
    if sites is not None and not (sites.isascii() and sites.isdigit()):
        raise LabError(f"--sites: {sites!r} is no number of sites")
    argv = list(getattr(arguments, "argv", []))
    junit = getattr(arguments, "junit", None)
    measured = arguments.command is commands.bench
    return Options(
        engine=arguments.engine,
        name=check_name(arguments.name, "--name"),
        file=Path(arguments.file) if arguments.file else None,
        sites=None if sites is None else int(sites),
        extras=_names(arguments, "extras", "LAB_WITH"),
        without=_names(arguments, "without", "LAB_WITHOUT"),
        json=arguments.format == "json",
        timeout=timeout,
        node=getattr(arguments, "node", ""),
        argv=argv[1:] if argv[:1] == ["--"] else argv,
        follow=getattr(arguments, "follow", False),
        junit=Path(junit) if junit else None,
        only=getattr(arguments, "only", None),
        between=_names(arguments, "between", "LAB_BETWEEN"),
        checks=tuple(getattr(arguments, "checks", ())),
        attack=attack.request(arguments) if arguments.command is commands.attack else None,
        bench=bench.request(arguments) if measured else None,
        evaluate=evaluate.request(arguments) if arguments.command is commands.evaluate else None,
        soak=soak.request(arguments) if arguments.command is commands.soak else None,
    )


def _names(arguments: argparse.Namespace, option: str, variable: str) -> tuple[str, ...]:
    """Return the names in comma lists: of an option that may be repeated, else of its variable."""
    if not hasattr(arguments, option):
        return ()
    lists = getattr(arguments, option) or [_setting(variable) or ""]
    return tuple(name for one in lists for name in one.replace(",", " ").split())


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("options of every command")
    group.add_argument(
        "--engine", default=_setting("ENGINE"), metavar="|".join(NAMES), help="what to run on"
    )
    group.add_argument(
        "--name", default=_setting("LAB_NAME") or DEFAULT_NAME, help="the lab's name"
    )
    group.add_argument(
        "--file", default=_setting("LAB_FILE"), help="the topology (default: compose.yaml)"
    )
    group.add_argument(
        "--format",
        default=_setting("LAB_FORMAT") or "table",
        metavar="table|json",
        help="of output",
    )
    group.add_argument(
        "--timeout",
        default=_setting("LAB_TIMEOUT"),
        metavar="SECONDS",
        help="of waiting for health",
    )
    parser = argparse.ArgumentParser(
        prog="lab",
        description="Two private networks, an untrusted network between them, one tunnel.",
        epilog=_EPILOG,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"lab {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[Options], int], text: str) -> Any:
        sub = subparsers.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(command=command)
        return sub

    def add_shape(to: Any) -> None:
        to.add_argument(
            "--sites",
            default=_setting("LAB_SITES"),
            metavar="N",
            help="how many sites (default: as many as it runs with, else 2)",
        )
        to.add_argument(
            "--with",
            dest="extras",
            action="append",
            metavar="NODE,NODE",
            help="more nodes: roadwarrior, web, nat (default: those that it runs with)",
        )
        to.add_argument(
            "--without",
            action="append",
            metavar="NODE,NODE",
            help="take them away again, or all",
        )

    text = "bring the lab up, or mend it; return when every tunnel carries packets"
    add_shape(add("up", commands.up, text))
    add("down", commands.down, "remove all of the lab, whatever state it is in")
    add("status", commands.status, "show nodes and tunnels; 0 when healthy, 1 when not")
    execute = add("exec", commands.execute, "run a command inside a node; return its exit code")
    execute.add_argument("node")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD")
    logs = add("logs", commands.logs, "print the log of a node")
    logs.add_argument("node")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    add("users", commands.users, "show who may log in, with which password, to reach what")
    text = "say what keeps the lab from running here, and how to mend it"
    add_shape(add("doctor", commands.doctor, text))
    test = add(
        "ping-test", commands.ping_test, "prove what the tunnel carries and what never leaks"
    )
    add_shape(test)
    test.add_argument("--junit", default=_setting("LAB_JUNIT"), metavar="FILE", help="for CI")
    test.add_argument(
        "--only", default=_setting("LAB_ONLY"), metavar="N,N", help="checks by number"
    )
    test.add_argument(
        "--between",
        action="append",
        metavar="NODE,NODE",
        help="the tunnel of these two, not the first two sites': roadwarrior,host-a",
    )
    people = add("users-test", commands.users_test, "prove what users may, and what they may not")
    people.add_argument("--junit", default=_setting("LAB_JUNIT"), metavar="FILE", help="for CI")
    people.add_argument("checks", nargs="*", metavar="NAME", help="checks by name (default: all)")
    breaks = add("attack", commands.attack, "try to break the tunnel, in weak modes and real ones")
    attack.add_options(breaks, _setting)
    speed = add("bench", commands.bench, "measure the gateway side by side with its peers")
    bench.add_options(speed, _setting)
    cost = add("evaluate", commands.evaluate, "measure what encryption costs, as the report did")
    evaluate.add_options(cost, _setting)
    long = add("soak", commands.soak, "traffic, rekeys and a bad path for a long time")
    soak.add_options(long, _setting)
    return parser


def _setting(variable: str) -> str | None:
    """Return an option's environment variable; an empty one counts as not set, as from make."""
    return os.environ.get(variable) or None
