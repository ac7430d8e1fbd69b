"""Every system call of a workload fails, in every way that it can, once and for ever; all of them
where CI is set, else every nth."""

import multiprocessing
import os
from collections import Counter

import pytest

from tests.crash.failures import fail_each
from tests.support.depth import FAULTS_EVERY

# What becomes of the others when a call fails, and the bounds of the files that it happens in.
HOW = [("once", "2"), ("once, and others go on", "1"), ("for ever", "2")]
# Each is shared out among processes.
PARTS = 2
# Everything the storage asks of the system.
CALLS = {"open", "close", "fstat", "lseek", "pread", "pwrite", "ftruncate", "fdatasync", "fsync"}
CALLS |= {"flock", "readlink", "rename", "unlink", "dup", "stat"}


@pytest.mark.timeout(600)
def test_any_call_may_fail(capsys):
    jobs = [
        (how, bounds, part * FAULTS_EVERY, PARTS * FAULTS_EVERY)
        for how, bounds in HOW
        for part in range(PARTS)
    ]
    with multiprocessing.get_context("spawn").Pool(min(8, os.cpu_count() or 1)) as pool:
        failed = pool.starmap(fail_each, jobs, chunksize=1)
    runs = sum(each.runs for each in failed)
    errors = sum((each.errors for each in failed), Counter())
    calls = [len(each.calls) for each in failed]
    with capsys.disabled():
        print(f"\n{runs} failures of {min(calls)} to {max(calls)} calls: {dict(errors)}")
    assert all(set(each.calls) >= CALLS for each in failed)
    assert errors["StoreFailedError"] >= runs // 2
