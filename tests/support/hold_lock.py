"""Runs statements on a SQLite file, prints "locked", and holds their locks until it reads a line from
standard input.

hold_lock.py FILE STATEMENTS
"""

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2].split(";"):
    connection.execute(statement).fetchall()
print("locked", flush=True)
sys.stdin.readline()
