"""Revisions of the tables that all kinds share, for Alembic; one that was released is never changed."""
