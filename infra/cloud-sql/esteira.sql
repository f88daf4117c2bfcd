-- Rights within the database `esteira`, run by infra/bootstrap.sh as often as it is.
-- The services that share its tables act as one role, which owns them: migrations (etl) create them, and the monitor adds
-- partitions, for which Postgres asks for ownership. The setting is the database's, for only who made an IAM user may alter
-- it. Nobody else may enter.
SET ROLE NONE;
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'esteira_owner') THEN
    CREATE ROLE esteira_owner NOLOGIN;
  END IF;
END $$;
GRANT esteira_owner TO CURRENT_USER;
GRANT esteira_owner TO "esteira-etl@${PROJECT}.iam", "esteira-trainer@${PROJECT}.iam", "esteira-monitor@${PROJECT}.iam";
REVOKE CONNECT ON DATABASE esteira FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE esteira TO esteira_owner;
GRANT USAGE, CREATE ON SCHEMA public TO esteira_owner;
ALTER DATABASE esteira SET role = 'esteira_owner';
