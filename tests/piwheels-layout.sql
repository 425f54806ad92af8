-- The tables of a piwheels 0.23 database that are read, as its documentation describes them:
-- the same names, types and keys, in our own words. What only its functions need is left out.

CREATE TABLE configuration (
    id          integer PRIMARY KEY DEFAULT 1,
    version     varchar(16) NOT NULL,
    pypi_serial bigint NOT NULL DEFAULT 0
);
INSERT INTO configuration (version) VALUES ('0.23');

CREATE TABLE packages (
    package     varchar(200) PRIMARY KEY,
    skip        varchar(100) NOT NULL DEFAULT '',
    description varchar(200) NOT NULL DEFAULT ''
);

CREATE TABLE package_names (
    package varchar(200) NOT NULL REFERENCES packages ON DELETE CASCADE,
    name    varchar(200) PRIMARY KEY,
    seen    timestamp NOT NULL DEFAULT '1970-01-01 00:00:00'
);

CREATE TABLE versions (
    package  varchar(200) NOT NULL REFERENCES packages ON DELETE CASCADE,
    version  varchar(200) NOT NULL,
    released timestamp NOT NULL DEFAULT '1970-01-01 00:00:00',
    skip     varchar(100) NOT NULL DEFAULT '',
    yanked   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (package, version)
);

CREATE TABLE build_abis (
    abi_tag varchar(100) PRIMARY KEY CHECK (abi_tag <> 'none'),
    skip    varchar(100) NOT NULL DEFAULT ''
);

CREATE TABLE builds (
    build_id serial PRIMARY KEY,
    package  varchar(200) NOT NULL,
    version  varchar(200) NOT NULL,
    built_by integer NOT NULL CHECK (built_by >= 0),
    built_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    duration interval NOT NULL,
    status   boolean NOT NULL DEFAULT true,
    abi_tag  varchar(100) NOT NULL,
    FOREIGN KEY (package, version) REFERENCES versions ON DELETE CASCADE
);

CREATE TABLE files (
    filename            varchar(255) PRIMARY KEY,
    build_id            integer NOT NULL REFERENCES builds ON DELETE CASCADE,
    filesize            integer NOT NULL,
    filehash            char(64) NOT NULL,
    package_tag         varchar(200) NOT NULL,
    package_version_tag varchar(200) NOT NULL,
    py_version_tag      varchar(100) NOT NULL,
    abi_tag             varchar(100) NOT NULL,
    platform_tag        varchar(100) NOT NULL,
    requires_python     varchar(200),
    location            varchar(100) NOT NULL DEFAULT '/simple'
);
CREATE INDEX ON files (build_id);

CREATE TABLE dependencies (
    filename   varchar(255) NOT NULL REFERENCES files ON DELETE CASCADE,
    tool       varchar(10) NOT NULL DEFAULT 'apt' CHECK (tool IN ('apt', 'pip', '')),
    dependency varchar(255) NOT NULL,
    PRIMARY KEY (filename, tool, dependency)
);

CREATE TABLE downloads (
    filename           varchar(255) NOT NULL,
    accessed_by        inet NOT NULL,
    accessed_at        timestamp NOT NULL,
    arch               varchar(100),
    distro_name        varchar(100),
    distro_version     varchar(100),
    os_name            varchar(100),
    os_version         varchar(100),
    py_name            varchar(100),
    py_version         varchar(100),
    installer_name     varchar(20),
    installer_version  varchar(100),
    setuptools_version varchar(100)
);

CREATE TABLE preinstalled_apt_packages (
    abi_tag     varchar(100) NOT NULL REFERENCES build_abis ON DELETE CASCADE,
    apt_package varchar(255) NOT NULL,
    PRIMARY KEY (abi_tag, apt_package)
);
