"""Compiles the inner loop for a wheel, or for an editable installation, where
`MEMVID_ASYNC_COMPILE=1` asks for it. Otherwise the package is pure Python and needs no compiler."""

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "memvid_async.file.inner_loop"
SOURCE = "src/memvid_async/file/inner_loop.pyx"


class InnerLoop(BuildHookInterface[Any]):
    """Adds the compiled module to a wheel."""

    def dependencies(self) -> list[str]:
        """Return what compiling needs."""
        return ["cython>=3.1", "setuptools"] if _is_asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it. An editable installation has it beside its source."""
        if self.target_name != "wheel" or not _is_asked():
            return
        root = Path(self.root)
        built = _compiled(root, root / "src" if version == "editable" else root / "build")
        build_data["pure_python"], build_data["infer_tag"] = False, True
        if version != "editable":
            build_data["force_include"][str(built)] = f"memvid_async/file/{built.name}"


def _is_asked() -> bool:
    return os.environ.get("MEMVID_ASYNC_COMPILE") == "1"


def _compiled(root: Path, target: Path) -> Path:
    from Cython.Build import cythonize  # noqa: PLC0415 - installed only where it is asked for
    from setuptools import Distribution, Extension  # noqa: PLC0415 - as above

    work = str(root / "build")
    extension = Extension(NAME, [SOURCE], extra_compile_args=["-O2", "-g0"])
    modules = cythonize([extension], build_dir=work, quiet=True)
    command: Any = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(target), work
    command.ensure_finalized()
    command.run()
    return Path(command.get_outputs()[0])
