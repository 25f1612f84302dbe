"""The shipped controller: a `Database` object gives a team a PostgreSQL database, and a Secret to connect to it."""
