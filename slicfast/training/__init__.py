"""The training loop and the sum of its losses (floor 5)."""
