-- Both run as the owner of the tables, whoever calls them: the role that HotSwap runs
-- as owns none. They find tables in the schema that they name, and nowhere else.

-- Makes the partition of a day, and moves what the default one has taken for it. It is
-- attached rather than created in place: that leaves the heartbeats of other days
-- alone. The default partition is locked first, as what it takes in between would
-- forbid the attachment.
CREATE FUNCTION health_create_reading_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    name text := 'health_reading_' || to_char(day, 'YYYYMMDD');
    since text := to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00';
    until text := to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00';
BEGIN
    LOCK TABLE health_reading_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE health_reading INCLUDING ALL)', name);
    EXECUTE format(
        'WITH moved AS (DELETE FROM health_reading_default '
        'WHERE at >= %L AND at < %L RETURNING *) '
        'INSERT INTO %I SELECT * FROM moved',
        since, until, name
    );
    EXECUTE format(
        'ALTER TABLE health_reading ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        name, since, until
    );
END
$$;

CREATE FUNCTION health_drop_reading_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('DROP TABLE %I', 'health_reading_' || to_char(day, 'YYYYMMDD'));
END
$$;

REVOKE ALL ON FUNCTION health_create_reading_partition(date) FROM PUBLIC;
REVOKE ALL ON FUNCTION health_drop_reading_partition(date) FROM PUBLIC;
