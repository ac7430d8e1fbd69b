"""Every system call of a workload fails, in every way that it can, once and for ever."""

import errno
from collections import Counter
from random import Random

import pytest

from memvid_async import CorruptFileError, StoreFailedError
from memvid_async.journal import Journal
from tests.crash.failures import SCRIPT, Run, calls_of, faults
from tests.crash.oracle import History, Values
from tests.crash.simfs import SimDisk
from tests.crash.simos import CHANGING, Fault, file_opener, simulated_calls
from tests.crash.workload import Driver, small_bounds
from tests.naive import FIRST_TIME, ask, start

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


@pytest.mark.parametrize("later", ["as long", "a longer text than before"])
def test_a_reader_is_told_when_what_it_took_in_did_not_reach_the_disk(later):
    """It saw a batch between its write and the sync that failed; another one stands there now."""
    with simulated_calls() as system:
        driver = Driver(SimDisk(), History(), 0, 1 << 100, file_opener(system))
        victim = driver.open(1)
        driver.commit(victim, [start(1)], FIRST_TIME)
        storage = file_opener(system)(driver.disk, read_only=True)
        reader = Journal.open(storage, driver.config, read_only=True)
        driver.begin(victim)
        driver.stage(victim, ask(1, "too bad"), FIRST_TIME + 1)

        def after_the_write():
            reader.refresh()
            system.arm(Fault(0, errno.EIO, then="dropped"))

        driver.on_operation = after_the_write
        with pytest.raises(StoreFailedError):
            driver.flush(victim)
        driver.on_operation = lambda: None
        assert reader.view.state.last_sequence == 2
        driver.kill(victim)
        system.arm(None)
        driver.commit(driver.open(2), [ask(1, later), ask(1, "one more")], FIRST_TIME + 2)
        with pytest.raises(CorruptFileError):
            reader.refresh()
