"""What a person should know about the pictures before trusting a model."""
