"""What a model gets right and wrong."""
