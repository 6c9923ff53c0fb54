"""The harness behind `slicfast bench` (floor 5)."""
