"""`python -m api` is the command line, for where the console script isn't installed."""

from api.cli import main

main()
