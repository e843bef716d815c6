-- Gives the administrator the password of secrets/postgres_password (docs/deploying.md, "Passwords"). Read by
-- psql itself: in an argument it would stand in the list of processes.
\set password `cat /run/secrets/postgres_password`
ALTER ROLE fellow PASSWORD :'password';
