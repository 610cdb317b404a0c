-- Every resource of the platform, one row each. `key` is the lower-case id; whole-part containment is the key range
-- from `scope/` up to `scope0` ('0' is the character after '/').
CREATE TABLE resources (
    key        TEXT    NOT NULL PRIMARY KEY,
    id         TEXT    NOT NULL,
    type       TEXT    NOT NULL,
    parent     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    observed   TEXT    NOT NULL,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    etag       TEXT    NOT NULL,
    deleting   INTEGER NOT NULL CHECK (deleting IN (0, 1)),
    system     TEXT    NOT NULL
) STRICT;

CREATE INDEX resources_by_type ON resources (type, key);
CREATE INDEX resources_by_parent ON resources (parent, key);

-- Long-running operations. They outlive their resource, so they refer to it by text alone.
-- Times are microseconds since 1970.
CREATE TABLE operations (
    ordinal    INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    resource   TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    status     TEXT    NOT NULL,
    result     TEXT,
    created_at INTEGER NOT NULL,
    ended_at   INTEGER
) STRICT;

CREATE INDEX operations_pending ON operations (ordinal) WHERE ended_at IS NULL;
CREATE INDEX operations_ended ON operations (ended_at, ordinal) WHERE ended_at IS NOT NULL;

-- Sealed values (nonce, ciphertext, tag) of an owner, named by the owner's key. The key that opens them is in a file
-- beside the database, never in it.
CREATE TABLE secrets (
    owner  TEXT NOT NULL,
    name   TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;

-- One sealed value of known content: it tells whether the key file belongs to this database.
CREATE TABLE key_check (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    sealed BLOB    NOT NULL
) STRICT;

CREATE TABLE sequences (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
