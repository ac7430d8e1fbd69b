"""The event log in one file: the catalog, the journal, compaction, verification, recovery."""
