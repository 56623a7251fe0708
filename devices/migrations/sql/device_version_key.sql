-- The key of what a device runs, by the rules of `devices.services.version_keys`. Of
-- several versions with the same bytes it is the one that the device names, else the
-- newest.
CREATE FUNCTION hotswap_device_version_key(its_model uuid, says text, runs text)
RETURNS text LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE AS $$
DECLARE
    key text;
BEGIN
    IF runs <> '' THEN
        SELECT f.precedence INTO key FROM firmware_firmware f
        WHERE f.model_id = its_model AND f.sha256 = runs
          AND f.status <> 'Absent'
        ORDER BY f.version <> says, f.created_at DESC, f.id LIMIT 1;
    END IF;
    IF key IS NULL AND says <> '' THEN
        SELECT hotswap_version_key(m.version_scheme, says) INTO key
        FROM firmware_devicemodel m WHERE m.id = its_model;
    END IF;
    RETURN COALESCE(key, '');
END
$$;
