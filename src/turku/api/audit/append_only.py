"""Database triggers that refuse to change or delete rows of the audit log.

They stop the application, whatever fault it has. The owner of a PostgreSQL table can drop them. If that matters, let
another role own the tables and run `turku-api migrate`, and grant the role of `turku-api serve` only SELECT and INSERT
on ``audit_auditentry`` (docs/reference/audit-log.md has the statements).
"""

from typing import Any

_SENTENCE = "the audit log is append-only"

_SQLITE = {
    word: f"CREATE TRIGGER audit_entry_no_{word} BEFORE {word.upper()} ON audit_auditentry "
    f"BEGIN SELECT RAISE(ABORT, '{_SENTENCE}'); END"
    for word in ("update", "delete")
}

# Row triggers, as in SQLite: `loaddata` tries an update before each insert, which finds nothing in a new database.
_POSTGRESQL = (
    "CREATE FUNCTION audit_entry_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ "
    f"BEGIN RAISE EXCEPTION '{_SENTENCE}' USING ERRCODE = 'integrity_constraint_violation'; END $$",
    "CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON audit_auditentry "
    "FOR EACH ROW EXECUTE FUNCTION audit_entry_refuse()",
    "CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON audit_auditentry "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_refuse()",
)


def set_up(_apps: Any, schema_editor: Any) -> None:
    """Create the triggers, as a step of the first migration."""
    statements = _POSTGRESQL if schema_editor.connection.vendor == "postgresql" else tuple(_SQLITE.values())
    for statement in statements:
        schema_editor.execute(statement)


def take_down(_apps: Any, schema_editor: Any) -> None:
    """Drop the triggers before the table is dropped."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP TRIGGER audit_entry_append_only ON audit_auditentry")
        schema_editor.execute("DROP TRIGGER audit_entry_no_truncate ON audit_auditentry")
        schema_editor.execute("DROP FUNCTION audit_entry_refuse()")
    else:
        for word in _SQLITE:
            schema_editor.execute(f"DROP TRIGGER audit_entry_no_{word}")
