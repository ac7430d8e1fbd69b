"""`python -m memvid_async` is the command line."""

from .cli import main

if __name__ == "__main__":
    main()
