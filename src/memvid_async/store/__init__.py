"""Opening a store, and the wiring of its parts."""
