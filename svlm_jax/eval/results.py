"""Results in JSON files that are whole at any moment, and measurements that go on where they were interrupted."""

import datetime
import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from svlm_jax.errors import EvalError
from svlm_jax.host.files import write_json
from svlm_jax.host.json_files import read_object
from svlm_jax.host.machine import describe
from svlm_jax.host.redact import redact
from svlm_jax.host.schema import ListOf, Object, Record


def manifest(command: Sequence[str], **said: Any) -> dict[str, Any]:
    """What stands beside every result: command, date (UTC), commit, machine with versions, and what else is `said`."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"command": redact(shlex.join(command), command), "date": now, "commit": _commit(), "machine": describe(), **said}


def _commit() -> str | None:
    """Of the checkout that the package runs from; None when it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class Rows:
    """Rows of a measurement by name, kept in a JSON file; a row that is there need not be measured again.

    Args:
      path: the file; one that exists goes on.
      settings: what all rows share. EvalError when the file holds rows of other settings.
      about: the manifest of this run; every row names the run that it is from.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], about: Mapping[str, Any]):
        self.path, self._settings, self._about = Path(path), json.loads(json.dumps(settings)), dict(about)
        before = read_object(self.path, EvalError, missing_ok=True)
        record = Record(before, str(self.path), EvalError)
        self._runs: list[Mapping[str, Any]] = list(record.get("runs", ListOf(Object()), ()))
        self.rows: dict[str, Any] = dict(record.get("rows", Object(), {}))
        found = record.get("settings", Object(), self._settings)
        other = sorted(name for name in {*found, *self._settings} if found.get(name) != self._settings.get(name))
        if other:
            name = other[0]
            raise EvalError(
                f"{self.path} holds results of {name}={found.get(name)!r}, not {self._settings.get(name)!r}: expected another "
                f"file, or the same settings."
            )

    def __contains__(self, name: str) -> bool:
        return name in self.rows

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        """Keeps a row, in the file too."""
        if self._about not in self._runs:
            self._runs.append(self._about)
        self.rows[name] = {**row, "run": len(self._runs) - 1}
        write_json(self.path, {"settings": self._settings, "runs": self._runs, "rows": self.rows})
