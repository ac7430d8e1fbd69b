"""A recording as people see it: HTML pages, JSON documents, and text that is safe to print."""
