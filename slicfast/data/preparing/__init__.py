"""From any video to the bytes that a store keeps: the pool of processes, its work, and what it leaves out."""
