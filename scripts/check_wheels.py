"""Ask the package index whether every dependency has wheels for each Python and platform of ours.

    python scripts/check_wheels.py [EXTRA ...]

By default the core and all extras are asked about; `core` names the core. What is missing from the
core or from an extra that users install is an error; what is missing elsewhere, or on Macs with an
Intel processor, is only listed.

pip resolves each extra for another Python and platform than the one it runs on, and downloads
nothing. A conditional dependency is taken where the condition holds for the Python it runs on.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
CORE = "core"
USERS = (CORE, "cli", "pytest", "vector", "view", "nats")
# glibc's versions that manylinux wheels are built for, of those that run on a Linux of today.
GLIBC = (
    "2_5",
    "2_12",
    "2_17",
    "2_24",
    "2_26",
    "2_27",
    "2_28",
    "2_31",
    "2_34",
    "2_35",
    "2_38",
    "2_39",
)
PLATFORMS = {
    **{
        f"Linux {machine}": [f"manylinux_{version}_{machine}" for version in GLIBC]
        + [f"manylinux{year}_{machine}" for year in ("1", "2010", "2014")]
        for machine in ("x86_64", "aarch64")
    },
    "macOS arm64": ["macosx_15_0_arm64"],
    "macOS x86_64": ["macosx_15_0_x86_64"],
}
LISTED_ONLY = "macOS x86_64"
MISSING = re.compile(r"No matching distribution found for (.+?)(?: \(from .*)?$", re.MULTILINE)


def read_extras(path: Path) -> dict[str, list[str]]:
    """Return what the core and each extra depend on, our own extras among it spelled out."""
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    extras = {CORE: project["dependencies"], **project["optional-dependencies"]}
    own = re.compile(rf"{project['name']}\[([\w,-]+)\]$")
    found: dict[str, list[str]] = {}
    for name, requirements in extras.items():
        waiting, wanted = list(requirements), list[str]()
        while waiting:
            requirement = waiting.pop(0)
            inner = own.match(requirement)
            if inner is None:
                wanted.append(requirement)
            else:
                waiting += [one for part in inner[1].split(",") for one in extras[part]]
        found[name] = wanted
    return found


def resolve(requirements: Sequence[str], python: str, tags: Iterable[str]) -> str | None:
    """Return which requirement has no wheel there, directly or by what it needs; None if all do.

    :raises RuntimeError: when pip fails for another reason.
    """
    with tempfile.TemporaryDirectory() as target:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--disable-pip-version-check", "--target", target]
        command += ["--only-binary", ":all:", "--python-version", python]
        for tag in tags:
            command += ["--platform", tag]
        done = subprocess.run(  # noqa: S603 - the requirements are the project's own
            [*command, *requirements], capture_output=True, text=True, check=False
        )
    if done.returncode == 0:
        return None
    found = MISSING.search(done.stderr)
    if found is None:
        raise RuntimeError(f"pip cannot say: {done.stderr.strip()}")
    return found[1]


def check(name: str, requirements: Sequence[str]) -> int:
    """Print what of an extra is missing where; return how many places those are.

    Places where a miss is not an error do not count.
    """
    count = 0
    for python in PYTHONS:
        for platform, tags in PLATFORMS.items():
            if resolve(requirements, python, tags) is None:
                continue
            missing = {resolve([one], python, tags): one for one in requirements}
            missing.pop(None, None)
            names = ", ".join(
                wanted if found in wanted else f"{found} (for {wanted})"
                for found, wanted in ((str(found), wanted) for found, wanted in missing.items())
            )
            print(
                f"  {name}: Python {python} on {platform}: no wheel of {names or 'them together'}"
            )
            count += platform != LISTED_ONLY
    return count


def main(names: Sequence[str]) -> int:
    """Check the extras with these names, by default all; return the exit status."""
    extras = read_extras(Path(__file__).resolve().parents[1] / "pyproject.toml")
    status = 0
    # What consists of other extras is not asked about twice.
    whole = [name for name in extras if name != "dev"]
    for name in names or dict.fromkeys((*USERS, *whole)):
        if name not in extras:
            print(f"{name}: not defined yet")
            continue
        count = check(name, extras[name])
        places = len(PYTHONS) * (len(PLATFORMS) - 1)
        print(f"{name}: wheels of all in {places - count} of {places} places", flush=True)
        if count and name in USERS:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
