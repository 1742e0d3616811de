"""The way of the tables from one version of the code to the next, as Alembic runs it; serving/storage/upgrade.py calls it.

A revision is a file of `versions`, named by a number, and never changed once it was released. Whoever changes serving/storage/tables.py
adds one and raises `HEAD`; a test on both databases compares what the revisions made with what tables.py says.
"""

#: The newest revision.
HEAD = "0003"
