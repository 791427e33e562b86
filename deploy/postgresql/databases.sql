-- Run once by PostgreSQL's image, in a new data folder. The passwords come from files: no command line shows them.
\set ON_ERROR_STOP on
\set siteward `cat /run/secrets/siteward`
\set grafana `cat /run/secrets/grafana`

CREATE ROLE siteward LOGIN PASSWORD :'siteward';
CREATE DATABASE siteward OWNER siteward;
REVOKE ALL ON DATABASE siteward FROM PUBLIC;

CREATE ROLE grafana LOGIN PASSWORD :'grafana';
CREATE DATABASE grafana OWNER grafana;
REVOKE ALL ON DATABASE grafana FROM PUBLIC;
