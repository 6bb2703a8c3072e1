"""`python -m ezpz` is `ezpz`."""

from ezpz.cli.app import main

if __name__ == "__main__":
    main()
