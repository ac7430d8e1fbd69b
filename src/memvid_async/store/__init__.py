"""Opening a store, and what it wires together."""
