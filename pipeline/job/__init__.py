"""The Beam job that turns pictures into shards, and the commit of what it wrote."""
