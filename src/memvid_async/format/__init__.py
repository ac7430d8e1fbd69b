"""The bytes of a store file. ``docs/format.md`` has the field tables and the reasons."""
