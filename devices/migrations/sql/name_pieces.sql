-- All that a name has of three letters in a row, in small letters, and how it ends. An
-- index of these finds a part of a name (`devices.querysets.name_contains`).
CREATE OR REPLACE FUNCTION hotswap_name_pieces(name text)
RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_to_tsvector(ARRAY(
        SELECT substr(lower(name COLLATE "C"), place, 3)
        FROM generate_series(1, length(name)) AS place
    ))
$$;
