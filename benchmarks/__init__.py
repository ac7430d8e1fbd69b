"""memvid_async beside the alternatives a user would pick: the same actions, the same promise.

`python -m benchmarks` measures everything (some minutes) and writes `benchmarks/report.md`;
`--quick` is a trial run.
"""
