-- Makes the password that the volume has the role's. It is in no argument, and not in the server's log.
\set password `cat /run/secrets/password`
SET log_statement = none;
SET log_min_error_statement = panic;
ALTER ROLE app PASSWORD :'password';
