"""Two roles in the database: one owns and migrates, the other runs HotSwap.

Rules:
- `HOTSWAP_DATABASE_URL` names the role that every program runs as. It owns nothing,
  reads and writes rows, and adds to the audit trail, which it cannot change.
- `HOTSWAP_DATABASE_OWNER_URL` is for `prepare` and `migrate` alone. Tables belong to
  its role, or, where that is a superuser, to `hotswap_owner`, which nobody logs in as
  and which takes over what belonged to others before.
- Without the second variable there is one role, which may do anything.
- What is right already stays untouched, so that several hosts may prepare at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DEFAULT_DB_ALIAS,
    OperationalError,
    connections,
    transaction,
)
from psycopg import sql

from hotswap.common import locks

OWNER: Final = "hotswap_owner"
AUDIT_TABLES: Final = ("common_auditevent", "common_auditseal", "common_auditanchor")
APPEND: Final = ("SELECT", "INSERT")
ROWS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
# By table, what the application may do where that is less than `ROWS`.
LESS: Final = dict.fromkeys(AUDIT_TABLES, APPEND) | {"django_migrations": ("SELECT",)}
ALL_RIGHTS: Final = (*ROWS, "TRUNCATE", "REFERENCES", "TRIGGER")

_OTHERS = """
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
           quote_ident(c.relname)
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S')
      AND c.relowner <> quote_ident(%(owner)s)::regrole
      AND NOT EXISTS (
          SELECT FROM pg_depend d
          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
            AND d.deptype IN ('a', 'i', 'e') AND (c.relkind = 'S' OR d.deptype = 'e'))
    UNION ALL
    SELECT 'FUNCTION', p.oid::regprocedure::text
    FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace
      AND p.proowner <> quote_ident(%(owner)s)::regrole
      AND NOT EXISTS (
          SELECT FROM pg_depend d
          WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""
_TABLES = """
    SELECT c.relname, ARRAY(
        SELECT held FROM unnest(%(rights)s::text[]) AS held
        WHERE has_table_privilege(%(role)s, c.oid, held)
           OR held IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
              AND has_any_column_privilege(%(role)s, c.oid, held))
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND pg_has_role(c.relowner, 'USAGE')
"""
_SEQUENCES = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S'
      AND pg_has_role(c.relowner, 'USAGE')
      AND NOT (has_sequence_privilege(%(role)s, c.oid, 'USAGE')
               AND has_sequence_privilege(%(role)s, c.oid, 'SELECT'))
"""
_FUNCTIONS = """
    SELECT p.oid::regprocedure::text FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace
      AND pg_has_role(p.proowner, 'USAGE')
      AND NOT has_function_privilege(%(role)s, p.oid, 'EXECUTE')
"""
_FAULTS = """
    WITH me AS (SELECT * FROM pg_roles WHERE rolname = current_user),
    tables AS (
        SELECT c.* FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p'))
    SELECT
        (SELECT rolsuper FROM me),
        (SELECT rolcreaterole FROM me),
        (SELECT count(*) FROM tables WHERE pg_has_role(relowner, 'MEMBER')),
        (SELECT count(*) FROM pg_proc
         WHERE pronamespace = 'public'::regnamespace
           AND pg_has_role(proowner, 'MEMBER')),
        has_schema_privilege('public', 'CREATE'),
        ARRAY(SELECT relname::text FROM tables
              WHERE has_table_privilege(oid, 'TRUNCATE, TRIGGER')
                 OR relname = ANY(%(append)s)
                    AND (has_any_column_privilege(oid, 'UPDATE')
                         OR has_table_privilege(oid, 'DELETE'))
              ORDER BY relname)
"""


@contextmanager
def owner_login(using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Let the connection log in by `HOTSWAP_DATABASE_OWNER_URL`, where that is set."""
    database = connections[using]
    former = database.settings_dict
    if not settings.DATABASE_OWNER or "hotswap_owner_login" in former:
        yield
        return
    database.close()
    database.settings_dict = {
        **former,
        **settings.DATABASE_OWNER,
        "hotswap_owner_login": True,
    }
    try:
        yield
    finally:
        database.close()
        database.settings_dict = former


@contextmanager
def as_owner(using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Act as the owner of the tables, and give the application its rights at the end.

    Makes both roles where they are missing, if the role of
    `HOTSWAP_DATABASE_OWNER_URL` may. Does nothing where that variable is not set.

    Raises:
        ImproperlyConfigured: the variables do not name two roles, or the second role
            is missing and cannot be made.
    """
    database = connections[using]
    if not settings.DATABASE_OWNER or "hotswap_owner_login" in database.settings_dict:
        yield
        return
    application = str(database.settings_dict["USER"])
    # A password that opens stays as it is: poolers may hold its digest, too.
    password = "" if _can_log_in(database) else str(database.settings_dict["PASSWORD"])
    with owner_login(using):
        owner = _make_roles(database, application, password)
        if owner != database.settings_dict["USER"]:
            # For every connection from now on, a new one after a failure included.
            options = dict(database.settings_dict["OPTIONS"])
            options["options"] = f"{options.get('options', '')} -c role={owner}"
            database.close()
            database.settings_dict = {**database.settings_dict, "OPTIONS": options}
        yield
        with transaction.atomic(using), database.cursor() as cursor:
            _lock(cursor)
            grant_rights(cursor, application)


def _can_log_in(database: Any) -> bool:
    try:
        database.ensure_connection()
    except OperationalError:
        return False
    return True


def _lock(cursor: Any) -> None:
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.DATABASE_ROLES])


def _make_roles(database: Any, application: str, password: str) -> str:
    """Make the roles that are missing; return the one that is to own the tables.

    Args:
        password: what the application's is to be; "" leaves it as it is.
    """
    with transaction.atomic(database.alias), database.cursor() as cursor:
        _lock(cursor)
        cursor.execute(
            "SELECT rolname, rolsuper, rolsuper OR rolcreaterole FROM pg_roles"
            " WHERE rolname = current_user"
        )
        login, is_superuser, makes_roles = cursor.fetchone()
        if application in ("", login):
            raise ImproperlyConfigured(
                "HOTSWAP_DATABASE_URL and HOTSWAP_DATABASE_OWNER_URL must name two "
                "roles: one runs HotSwap, the other owns its tables"
            )
        owner = OWNER if is_superuser else login
        if application == owner:
            raise ImproperlyConfigured(
                f"HOTSWAP_DATABASE_URL must not name {OWNER}, which owns the tables"
            )
        if is_superuser and not _exists(cursor, owner):
            cursor.execute(f"CREATE ROLE {owner} NOLOGIN")
        name = sql.Identifier(application)
        if not _exists(cursor, application):
            if not makes_roles:
                raise ImproperlyConfigured(
                    f"the role {application} of HOTSWAP_DATABASE_URL is missing, and "
                    f"{login} may not make it: CREATE ROLE {application} LOGIN "
                    "PASSWORD '...'"
                )
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
            _set_password(database, cursor, application, password)
        elif is_superuser:
            _set_password(database, cursor, application, password)
        if is_superuser:
            _hand_over(cursor, owner)
    return str(owner)


def _exists(cursor: Any, role: str) -> bool:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
    return cursor.fetchone() is not None


def _set_password(database: Any, cursor: Any, role: str, password: str) -> None:
    """Set a password, of which the server and its log see the digest alone."""
    if not password:
        return
    digest = database.connection.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    )
    cursor.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(digest.decode())
        )
    )


def _hand_over(cursor: Any, owner: str) -> None:
    """Let the database and all in it belong to a role."""
    cursor.execute(
        "SELECT datname FROM pg_database"
        " WHERE datname = current_database() AND datdba <> quote_ident(%s)::regrole",
        [owner],
    )
    for (name,) in cursor.fetchall():
        cursor.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                sql.Identifier(name), sql.Identifier(owner)
            )
        )
    cursor.execute(
        "SELECT 1 FROM pg_namespace WHERE nspname = 'public'"
        " AND NOT has_schema_privilege(%s, oid, 'CREATE')",
        [owner],
    )
    if cursor.fetchone():
        cursor.execute(f"GRANT ALL ON SCHEMA public TO {owner}")
    cursor.execute(_OTHERS, {"owner": owner})
    for kind, name in cursor.fetchall():
        cursor.execute(f"ALTER {kind} {name} OWNER TO {owner}")


def grant_rights(cursor: Any, application: str) -> None:
    """Give a role, as the owner of the tables, what HotSwap needs and no more."""
    role = sql.Identifier(application)

    def execute(statement: str, **names: str) -> None:
        identifiers = {key: sql.Identifier(name) for key, name in names.items()}
        cursor.execute(sql.SQL(statement).format(role=role, **identifiers))

    values = {"role": application, "rights": list(ALL_RIGHTS)}
    cursor.execute(
        "SELECT has_schema_privilege(%(role)s, 'public', 'USAGE'),"
        " has_schema_privilege(%(role)s, 'public', 'CREATE')",
        values,
    )
    may_use, may_create = cursor.fetchone()
    if not may_use:
        execute("GRANT USAGE ON SCHEMA public TO {role}")
    if may_create:
        execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC, {role}")
    cursor.execute(_TABLES, values)
    for table, held in cursor.fetchall():
        wanted = LESS.get(table, ROWS)
        if set(held) - set(wanted):
            execute("REVOKE ALL ON TABLE {table} FROM PUBLIC, {role}", table=table)
            held = []
        if set(wanted) - set(held):
            rights = ", ".join(wanted)
            execute(f"GRANT {rights} ON TABLE {{table}} TO {{role}}", table=table)
    cursor.execute(_SEQUENCES, values)
    for (sequence,) in cursor.fetchall():
        execute(
            "GRANT USAGE, SELECT ON SEQUENCE {sequence} TO {role}", sequence=sequence
        )
    cursor.execute(_FUNCTIONS, values)
    for (function,) in cursor.fetchall():
        execute(f"GRANT EXECUTE ON FUNCTION {function} TO {{role}}")
    # Partitions that are made until the next start.
    cursor.execute(
        "SELECT 1 FROM pg_default_acl, aclexplode(defaclacl) AS held"
        " WHERE defaclrole = quote_ident(current_user)::regrole AND defaclobjtype = 'r'"
        " AND held.grantee = quote_ident(%(role)s)::regrole",
        values,
    )
    if not cursor.fetchone():
        execute(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public"
            f" GRANT {', '.join(ROWS)} ON TABLES TO {{role}}"
        )


def rights_too_many(using: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Return, a sentence each, what the connection's role may do and should not.

    Empty where it owns nothing and cannot change the audit trail.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_FAULTS, {"append": list(AUDIT_TABLES)})
        is_super, makes_roles, owned, functions, may_create, tables = cursor.fetchone()
    if is_super:
        return ["The role of HOTSWAP_DATABASE_URL is a superuser."]
    found = []
    if makes_roles:
        found.append("The role of HOTSWAP_DATABASE_URL may make roles.")
    if owned or functions:
        found.append(
            f"The role of HOTSWAP_DATABASE_URL owns {owned} tables and {functions} "
            "functions."
        )
    elif tables:
        found.append(
            "The role of HOTSWAP_DATABASE_URL has more rights than it needs on "
            f"{', '.join(tables)}."
        )
    if may_create:
        found.append(
            "The role of HOTSWAP_DATABASE_URL may create objects in the schema public."
        )
    return found


def require_separate_roles() -> None:
    """Check the application's role where a second one is configured.

    Raises:
        ImproperlyConfigured: it owns tables, or may change the audit trail.
    """
    if settings.DATABASE_OWNER and (found := rights_too_many()):
        raise ImproperlyConfigured(
            f"{' '.join(found)} docs/operate/install.md, Two roles in the database, "
            "says how it loses them"
        )
