"""The shipped controller: gives a team a PostgreSQL database from one `Database` object."""
