"""A mapping of a YAML file that knows its dotted key, so that every mistake can name it. Pure.

`interpolate` puts variables in place as Compose does.

Not here: what the keys mean (`topology.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lab.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE: Final = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<op>:?[-?])(?P<arg>[^}]*))?\}"
    r"|(?P<bare>[A-Za-z_]\w*)|(?P<bad>))"
)


class Reader:
    """One mapping of the file that knows its dotted key, so that every mistake can name it."""

    def __init__(self, file: str, key: str, value: Any) -> None:
        self.file, self.key, self.value = file, key, value
        if not isinstance(value, dict):
            raise self.error("", f"must be a mapping, not {type(value).__name__}")

    def error(self, key: str, message: str) -> TopologyError:
        """Return what to raise about a key; "" is the mapping itself."""
        return TopologyError(self.file, ".".join(k for k in (self.key, key) if k), message)

    def get(self, key: str, default: Any = None) -> Any:
        """Return whatever the key has."""
        return self.value.get(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; without a default it must be there."""
        value = self.value.get(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if not isinstance(value, str):
            raise self.error(key, f"must be text, not {value!r}")
        return value

    def truth(self, key: str) -> bool:
        """Return true or false; nothing is false."""
        value = self.value.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of texts; nothing is an empty one."""
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"must be a list of texts, not {value!r}")
        return value

    def sub(self, key: str) -> Reader:
        """Return the mapping that a key has; it must be there."""
        if key not in self.value:
            raise self.error(key, "is missing")
        return Reader(self.file, f"{self.key}.{key}".lstrip("."), self.value[key])

    def items(self) -> list[tuple[str, Reader]]:
        """Return all keys with their mappings."""
        return [(key, self.sub(key)) for key in self.value]


def interpolate(value: Any, environment: Mapping[str, str], file: str, key: str) -> Any:
    """Replace variables in every text of the tree, as Compose does: values, never keys."""
    if isinstance(value, dict):
        return {
            k: interpolate(v, environment, file, f"{key}.{k}".lstrip(".")) for k, v in value.items()
        }
    if isinstance(value, list):
        return [interpolate(v, environment, file, f"{key}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name = match["name"] or match["bare"]
        if not name:
            raise TopologyError(
                file, key, f"bad variable in {value!r}; write ${{NAME:-default}} or $$"
            )
        found = environment.get(name)
        op, argument = match["op"] or "-", match["arg"] or ""
        if found is None or (not found and op.startswith(":")):
            if op.endswith("?"):
                raise TopologyError(file, key, f"{name} is not set; {argument or 'set it'}")
            return argument
        return found

    return _VARIABLE.sub(replace, value)
