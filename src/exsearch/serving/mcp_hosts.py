"""A host is a program that starts MCP servers; each has a JSON file with an entry for every server.

Entries are added here. Nothing is started, and no key is written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exsearch.errors import ConfigError
from exsearch.json_files import check_shape, read_json
from exsearch.runs import make_folder, write_atomic


@dataclasses.dataclass(frozen=True)
class Host:
    """Where a host keeps its entries.

    Attributes:
        file: The JSON file.
        field: The name of the object in it that holds the entries.
        typed: Whether an entry says that it talks over standard input and output.
    """

    file: Path
    field: str = "mcpServers"
    typed: bool = False

    def entry(self, command: Sequence[str]) -> dict[str, Any]:
        """The entry of a server that a command starts."""
        kind = {"type": "stdio"} if self.typed else {}
        return {**kind, "command": command[0], "args": list(command[1:])}


def hosts() -> Mapping[str, Host]:
    """The hosts that are known, by name; the files of two belong to the current folder."""
    return {
        "claude-desktop": Host(_settings_folder() / "Claude" / "claude_desktop_config.json"),
        "claude-code": Host(Path.cwd() / ".mcp.json", typed=True),
        "cursor": Host(Path.home() / ".cursor" / "mcp.json"),
        "vscode": Host(Path.cwd() / ".vscode" / "mcp.json", field="servers", typed=True),
    }


def install(host: Host, name: str, command: Sequence[str], *, force: bool = False) -> bool:
    """Add an entry to a host's file, and leave the rest of it as it is.

    Args:
        host: The host.
        name: The name of the server.
        command: The command that starts it, whose paths are absolute.
        force: Whether an entry that has the name already may be replaced.

    Returns:
        False where the entry was there already.

    Raises:
        ConfigError: the file can't be used, or has another entry with this name.
    """
    file = host.file.resolve()  # a link stays one
    remedy = "mend it, or add the entry by hand: --print shows it"
    values = read_json(file, ConfigError, remedy) if file.exists() else {}
    try:
        entries = check_shape({host.field: {}, **values}, {host.field: dict})[host.field]
    except ValueError as fault:
        raise ConfigError(f"{file}: {fault}; {remedy}") from None
    entry = host.entry(command)
    if entries.get(name) == entry:
        return False
    if name in entries and not force:
        raise ConfigError(
            f"{file}: has another entry {name!r}; --force replaces it, --name gives another name"
        )
    values[host.field] = {**entries, name: entry}
    make_folder(file.parent)
    mode = file.stat().st_mode if file.exists() else None
    write_atomic(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    if mode is not None:
        file.chmod(mode)
    return True


def _settings_folder() -> Path:
    """The folder in which programs of this system keep a user's settings."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
