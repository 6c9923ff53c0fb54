"""What an encoder is worth: retrieval (floor 4)."""
