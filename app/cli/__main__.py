"""``python -m app.cli`` is ``mesh``."""

from app.cli.main import main

main()
