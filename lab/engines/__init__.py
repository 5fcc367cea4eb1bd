"""What the lab runs on. `base.Engine` is what each must do; `choose` picks one and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.errors import EngineError

if TYPE_CHECKING:
    from lab.engines.base import Engine

NAMES: Final = ("docker", "netns")


def engine_class(name: str) -> type[Engine]:
    """Return the engine of that name. Imported here, so that netns needs no docker SDK."""
    if name == "docker":
        from lab.engines.docker import DockerEngine  # noqa: PLC0415

        return DockerEngine
    if name == "netns":
        from lab.engines.netns import NetnsEngine  # noqa: PLC0415

        return NetnsEngine
    raise EngineError(f"ENGINE: no engine is called {name!r}; use {' or '.join(NAMES)}")


def choose(wanted: str | None) -> tuple[type[Engine], str]:
    """Return the engine to use and why: the wanted one, else docker if it answers, else netns."""
    if wanted:
        chosen = engine_class(wanted)
        found = chosen.available()
        if not found.ok:
            raise EngineError(f"the {wanted} engine cannot run here: {found.reason}")
        return chosen, f"asked for; {found.reason}"
    reasons: list[str] = []
    for name in NAMES:
        chosen = engine_class(name)
        found = chosen.available()
        if found.ok:
            return chosen, "; ".join([found.reason, *reasons])
        reasons.append(f"no {name}: {found.reason}")
    raise EngineError(f"no engine can run here: {'; '.join(reasons)}")
