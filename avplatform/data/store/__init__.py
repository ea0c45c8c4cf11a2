"""A data folder: its schema, its shards and checksums, and how it is written whole."""
