-- Sets the administrator's password to secrets/postgres_password (docs/deploying.md, "Passwords"). psql reads
-- the file itself, because an argument would be visible in the list of processes.
\set password `cat /run/secrets/postgres_password`
ALTER ROLE fellow PASSWORD :'password';
