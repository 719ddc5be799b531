"""`python -m collateral.cli`: the same as the console script `collateral`."""

from collateral.cli.main import main

if __name__ == "__main__":
    main()
