-- The embedded broker's file. Bodies stand last in their rows, so that counting never reads them.
CREATE TABLE queues (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    published INTEGER NOT NULL DEFAULT 0,    -- records ever routed here
    acknowledged INTEGER NOT NULL DEFAULT 0  -- records ever acknowledged here
);
CREATE TABLE bindings (
    queue INTEGER NOT NULL REFERENCES queues,
    pattern TEXT NOT NULL,
    PRIMARY KEY (queue, pattern)
) WITHOUT ROWID;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content_encoding TEXT NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    published INTEGER NOT NULL,  -- microseconds since 1970 UTC
    body BLOB NOT NULL
);
-- One row per queue that still wants the message. Ready: no consumer; unacknowledged: a living one.
CREATE TABLE deliveries (
    queue INTEGER NOT NULL REFERENCES queues,
    message INTEGER NOT NULL REFERENCES messages,
    consumer INTEGER,
    redelivered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, message)
) WITHOUT ROWID;
CREATE INDEX held ON deliveries (queue, consumer) WHERE consumer IS NOT NULL;
-- A consumer lives while it renews its lease; nothing else a dead process could hold.
CREATE TABLE consumers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL REFERENCES queues,
    name TEXT NOT NULL,
    until INTEGER NOT NULL,  -- microseconds since 1970 UTC
    UNIQUE (queue, name)
);
CREATE TABLE parked (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL REFERENCES queues,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content_encoding TEXT NOT NULL,
    count INTEGER NOT NULL,
    body BLOB NOT NULL
);
-- One row: the size of all waiting bodies.
CREATE TABLE totals (bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0);
PRAGMA user_version = 1;
