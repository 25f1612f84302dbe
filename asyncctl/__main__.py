"""`python -m asyncctl`."""

from asyncctl.cli.main import main

main()
