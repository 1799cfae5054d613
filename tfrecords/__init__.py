"""The on-disk contract: what a picture, a record, a shard and a finished artefact are."""
