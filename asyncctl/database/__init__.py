"""The controller that ships with asyncctl: `Database` objects become PostgreSQL databases."""
