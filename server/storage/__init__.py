"""The database and the run folders: the only part of the server that imports SQLAlchemy."""
