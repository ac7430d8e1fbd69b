"""A disk whose sync takes longer: a shared library, made here, around `fdatasync` and `fsync`.

Preloaded, it slows every contender alike, SQLite in C included.
"""

import shutil
import subprocess
from pathlib import Path

VARIABLE = "BENCHMARK_SYNC_MICROSECONDS"
_SOURCE = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int slower(const char *name, int descriptor)
{{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *text = getenv("{VARIABLE}");
    long wait = text ? atol(text) : 0;
    struct timespec left = {{wait / 1000000, wait % 1000000 * 1000}};
    int result = real(descriptor);
    nanosleep(&left, NULL);
    return result;
}}

int fdatasync(int descriptor) {{ return slower("fdatasync", descriptor); }}
int fsync(int descriptor) {{ return slower("fsync", descriptor); }}
"""


def environment(directory: Path, milliseconds: float) -> dict[str, str] | None:
    """Return the variables of a process whose syncs take longer; None where there is no compiler.

    The library is made in ``directory``.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library, source = directory / "slow_sync.so", directory / "slow_sync.c"
    if not library.exists():
        source.write_text(_SOURCE, encoding="ascii")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), VARIABLE: str(round(milliseconds * 1000))}
