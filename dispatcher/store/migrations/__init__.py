"""Alembic's folder: one revision a file, in `versions/`."""
