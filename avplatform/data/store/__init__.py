"""A data folder (store): its schema, shards and checksums, and how it is written."""
