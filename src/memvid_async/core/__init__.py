"""The pure core: commands are decided into events, events are folded into state."""
