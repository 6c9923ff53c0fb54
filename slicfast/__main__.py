"""`python -m slicfast`, for `torchrun --nproc-per-node=2 -m slicfast train ...`."""

from slicfast.cli import main

if __name__ == "__main__":  # a spawned worker imports this file under another name
    main()
