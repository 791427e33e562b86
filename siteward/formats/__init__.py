"""Exchange formats, read and written; pure."""
