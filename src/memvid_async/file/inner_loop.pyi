from collections.abc import Sequence
from typing import Any

from ..core.commands import Command
from .journal import Journal

def stage_run(journal: Journal, commands: Sequence[Command]) -> list[Any]: ...
