"""Frames folded into a search index: live, past, and forked."""
