"""Runs the statements of a corpus as a tool sends them: one by one, in autocommit."""
import sys

import psycopg

failed = 0
with open(sys.argv[1]) as file:
    statements = [text.strip() for text in file.read().split(";\n") if text.strip()]
with psycopg.connect(autocommit=True) as c:
    for text in statements:
        try:
            cur = c.execute(text, prepare=False)
            print(cur.statusmessage, [column.name for column in cur.description or []])
        except psycopg.Error as error:
            failed += 1
            print(error.sqlstate, error.diag.message_primary, text)
print(len(statements), "statements,", failed, "failed")
sys.exit(failed > 0)
