"""Bytes to pictures: FFmpeg for files, DALI for stored JPEG and VP9, and headers checked before either."""
