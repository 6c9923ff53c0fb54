"""DALI's and torch's graphs of a GPU for what is not stored as JPEG."""
