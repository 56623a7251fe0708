-- The keys by which versions sort, the same as `firmware.versions.version_key`, which
-- says how they are made; the tests hold one against the other. What is no version of
-- the scheme has the empty key.
CREATE FUNCTION hotswap_number_key(digits text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT lpad(length(number)::text, 2, '0') || number
    FROM (SELECT COALESCE(NULLIF(ltrim(digits, '0'), ''), '0') AS number) AS one
$$;

CREATE FUNCTION hotswap_version_key(scheme text, version text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    parts text[];
    part text;
    key text;
    days int;
BEGIN
    IF version = '' OR length(version) > 64 THEN
        RETURN '';
    END IF;
    IF scheme = 'semver' THEN
        parts := regexp_match(
            version,
            '^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)'
            '(?:-([0-9A-Za-z.-]+))?(?:[+][0-9A-Za-z-]+(?:[.][0-9A-Za-z-]+)*)?$'
        );
        IF parts IS NULL THEN
            RETURN '';
        END IF;
        key := 's';
        FOR i IN 1..3 LOOP
            key := key || hotswap_number_key(parts[i]);
        END LOOP;
        IF parts[4] IS NULL THEN
            RETURN key || '~';
        END IF;
        FOREACH part IN ARRAY string_to_array(parts[4], '.') LOOP
            IF part ~ '^(0|[1-9][0-9]*)$' THEN
                key := key || '0' || hotswap_number_key(part);
            ELSIF part ~ '^[0-9]*$' THEN
                RETURN '';
            ELSE
                key := key || '1' || part || '!';
            END IF;
        END LOOP;
        RETURN key || '!';
    ELSIF scheme = 'numeric' THEN
        IF version !~ '^[vV]?[0-9]+([.][0-9]+)*$' THEN
            RETURN '';
        END IF;
        key := 'n';
        FOREACH part IN ARRAY string_to_array(
            regexp_replace(ltrim(version, 'vV'), '([.]0+)+$', ''), '.'
        ) LOOP
            key := key || hotswap_number_key(part);
        END LOOP;
        RETURN CASE WHEN key = 'n010' THEN 'n' ELSE key END;
    ELSIF scheme = 'date' THEN
        parts := regexp_match(
            version, '^([0-9]{4})([.-]?)([0-9]{2})\2([0-9]{2})(?:[.-]([0-9]+))?$'
        );
        IF parts IS NULL OR parts[1] = '0000' OR parts[3] NOT BETWEEN '01' AND '12' THEN
            RETURN '';
        END IF;
        days := extract(day FROM make_date(parts[1]::int, parts[3]::int, 1)
                        + interval '1 month' - interval '1 day');
        IF parts[4]::int NOT BETWEEN 1 AND days THEN
            RETURN '';
        END IF;
        RETURN 'd' || parts[1] || parts[3] || parts[4]
            || hotswap_number_key(COALESCE(parts[5], '0'));
    END IF;
    RETURN '';
END
$$;
