"""Pictures to records: AIdea's layout in, a dataset folder out, by a Beam job where there is more than one shard."""
