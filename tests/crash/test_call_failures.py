"""Every system call of a workload fails, in every way that it can, once and for ever."""

from collections import Counter
from random import Random

import pytest

from memvid_async import StoreFailedError
from tests.crash.failures import SCRIPT, Run, calls_of, faults
from tests.crash.oracle import Values
from tests.crash.simos import CHANGING, simulated_calls
from tests.crash.workload import small_bounds

BOUNDS = ["1", "2"]
# Everything the storage asks of the system.
CALLS = {"open", "close", "fstat", "lseek", "pread", "pwrite", "ftruncate", "fdatasync", "fsync"}
CALLS |= {"flock", "readlink", "lstat", "rename", "unlink"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
def test_any_call_may_fail(bounds, forever):
    values, errors, runs = Values(), Counter(), 0
    with simulated_calls() as system, small_bounds(Random(bounds)):
        calls = calls_of(system)
        assert set(calls) >= CALLS - {"lstat"}
        for fault in faults(calls):
            if fault.forever is forever:
                run = Run(system, fault, values)
                try:
                    run.run()
                except BaseException as error:
                    error.add_note(f"bounds {bounds}; {fault}: {calls[fault.at]}")
                    raise
                errors.update(type(error) for error in run.errors)
                runs += 1
    print(f"\n{runs} runs of {len(SCRIPT)} steps and {len(calls)} calls; {dict(errors)}")
    assert errors[StoreFailedError] >= runs // 2
    assert {calls.count(call) > 0 for call in CHANGING} == {True}
