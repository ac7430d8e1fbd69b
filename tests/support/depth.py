"""How deep the tests go: the one switch, and every number that it turns.

Where ``CI`` is set they go as deep as they can within a few minutes; elsewhere they keep nobody
waiting. Every kind of test runs either way: what differs is how many cases each has.
"""

import os

DEEP = bool(os.environ.get("CI"))

# Examples of a property; HYPOTHESIS_PROFILE=long asks for more.
EXAMPLES = 100 if DEEP else 9
# Crash images that are opened; CRASH_STATES asks for another number.
CRASH_STATES = 250_000 if DEEP else 2_000
# Of the moments at which a workload is killed and its file lived on with: every nth.
CRASH_EVERY = 1 if DEEP else 29
# Of all system calls that can fail, and of all ways to: every nth.
FAULTS_EVERY = 1 if DEEP else 61
# Of the hostile files of a group: every nth. Odd, so that each bit of a byte has its turn.
HOSTILE_EVERY = 1 if DEEP else 99
# Of the places that a slot may point at: every nth. Odd, as three of them stand side by side.
SLOTS_EVERY = 1 if DEEP else 5
# Random agents that are killed at every event of theirs, and resumed.
RANDOM_AGENTS = 160 if DEEP else 12
# Of the files whose contents contradict each other, through every call and command: every nth.
CONTRADICTING_EVERY = {"hand": 1, "chance": 12} if DEEP else {"hand": 16, "chance": 160}
# Of the reads of a fold that fail in turn: every nth.
READS_EVERY = 1 if DEEP else 6
# Forks of forks, updates of one frame, tasks in tasks. More than Python nests calls, either way.
CHAIN = 5000 if DEEP else 1100
# How many documents are put at once where nothing may hold up the loop.
DOCUMENTS = 10_000 if DEEP else 2_000
# How many frames are put together, to be held against as many one by one.
TOGETHER = (1, 20, 1000, 1001, 2500) if DEEP else (1, 20, 1001)
# How often texts that were shown before are shown again.
SHOWN = 10 if DEEP else 3
# The benchmarks of the trial run, and a case that each reports.
BENCHMARKS = {"buffered": "buffered, 1 task", "size": "file size"}
if DEEP:
    BENCHMARKS |= {"durable": "durable, 1 task, unpinned", "locking": "locking, 1 task"}
    BENCHMARKS |= {"histories": "a page of 100 of them, newest first", "replay": "replay"}
# Of the bytes of a sound file that are flipped, those of its structure aside: every nth.
DAMAGE_EVERY = 1 if DEEP else 23
# Of the pages of the view that a browser looks at, in every width and scheme: every nth.
PAGES_EVERY = 1 if DEEP else 3
# Real runs whose exports are measured.
EXPORTED_RUNS = 40 if DEEP else 3
# Writers that are killed: by the kill test, and by the torture.
KILLS = 110 if DEEP else 8
TORTURE_KILLS = 200 if DEEP else 8
# What the logs of the contract suite are on: a cluster starts within seconds.
LOGS = ("file", "ram", "stream", "cluster") if DEEP else ("file", "ram", "stream")
# Agents that are killed and resumed: at every nth moment of their calls, and at random ones.
RESUMED_EVERY = 6 if DEEP else 12
RESUMED_KILLS = 24 if DEEP else 8
# How often each of the processes that compete for a key adds one to it.
ADDITIONS = 20 if DEEP else 5
# The ways in which a process with work pending ends its loop, tried under uvloop too.
ENDINGS_OF_UVLOOP = ("interrupted", "returning", "buffered", "closed by hand")[: 4 if DEEP else 1]
# How the paths begin, below tests/, of the files whose async tests run under uvloop too. The others
# test events and their values, whatever the loop.
_LOOPS = (
    "engine/test_subscription",
    "engine/test_writer",
    "engine/test_closing",
    "engine/test_worker",
)
_CONTEXTS = ("recording/test_callables", "recording/test_in_force", "recording/test_sessions")
UVLOOP = ("",) if DEEP else _LOOPS + _CONTEXTS
