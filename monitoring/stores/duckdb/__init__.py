"""The store on DuckDB: one process owns the file, every other one asks it over a local socket."""
