"""The event log in one file: what lies where, the journal, compaction, verification, recovery."""
