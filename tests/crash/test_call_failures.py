"""Every system call of a workload fails, in every way that it can, once and for ever."""

from collections import Counter
from random import Random

import pytest

from memvid_async import StoreFailedError
from tests.crash.driver import small_bounds
from tests.crash.failures import SCRIPT, Run, calls_of, faults
from tests.crash.oracle import Values
from tests.crash.simos import CHANGING, simulated_calls

# What happens to the others when a call fails, and the bounds of the files that it happens in.
HOW = [("once", "1"), ("once, and others go on", "2"), ("forever", "1")]
# Everything the storage asks of the system.
CALLS = {"open", "close", "fstat", "lseek", "pread", "pwrite", "ftruncate", "fdatasync", "fsync"}
CALLS |= {"flock", "readlink", "lstat", "rename", "unlink"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("how", "bounds"), HOW)
def test_any_call_may_fail(how, bounds):
    values, errors, runs = Values(), Counter(), 0
    with simulated_calls() as system, small_bounds(Random(bounds)):
        calls = calls_of(system)
        assert set(calls) >= CALLS - {"lstat"}
        for fault in faults(calls):
            if fault.forever is (how == "forever"):
                run = Run(system, fault, values, alone=how == "once, and others go on")
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
