-- The running instances of services. A text column holds a backslash and a NUL as \\ and \0.
CREATE TABLE tidings.directory (
    service text NOT NULL,
    instance text NOT NULL,
    -- When the entry expires.
    valid_until timestamptz NOT NULL,
    state text NOT NULL,
    -- As in letters.
    headers bytea NOT NULL,
    PRIMARY KEY (service, instance)
);
