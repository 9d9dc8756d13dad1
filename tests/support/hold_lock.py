"""Runs statements in a file of SQLite, says "locked", and keeps what they hold until a line comes in.

hold_lock.py FILE STATEMENTS
"""

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2].split(";"):
    connection.execute(statement).fetchall()
print("locked", flush=True)
sys.stdin.readline()
