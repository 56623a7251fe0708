-- The history of heartbeats: one partition a day (UTC), and one for all other days.
CREATE TABLE health_reading (
    device_id uuid NOT NULL,
    at timestamptz NOT NULL,
    cpu_percent double precision,
    memory_percent double precision,
    error_ratio double precision,
    uptime_seconds bigint,
    firmware_version varchar(64) NOT NULL,
    is_first_of_boot boolean NOT NULL,
    application_metrics jsonb,
    PRIMARY KEY (device_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE health_reading_default PARTITION OF health_reading DEFAULT;

-- The first week, so that nothing has to move when the periodic work begins.
DO $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date;
BEGIN
    FOR number IN 0..7 LOOP
        day := today + number;
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF health_reading '
            'FOR VALUES FROM (%L) TO (%L)',
            'health_reading_' || to_char(day, 'YYYYMMDD'),
            to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
            to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00'
        );
    END LOOP;
END $$;
