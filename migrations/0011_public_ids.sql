-- Ids as the API and the log spell them (`msg_…`, `ep_…`), for people who query: a public id as the uuid that the tables hold, and back.
-- The public form is a prefix and 27 base62 digits of 160 bits: the seconds since 1400000000, then the uuid (crates/domain/src/id.rs).

-- The public form of a row's id: `posthaste_id('msg', id)`.
create function posthaste_id(prefix text, id uuid) returns text language plpgsql immutable strict parallel safe as $$
declare
  alphabet constant text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  hex constant text := replace(id::text, '-', '');
  seconds constant bigint := ('x' || lpad(left(hex, 12), 16, '0'))::bit(64)::bigint / 1000 - 1400000000;
  number numeric := least(greatest(seconds, 0), 4294967295);
  digits text := '';
begin
  for word in 0..3 loop
    number := number * 4294967296 + ('x' || lpad(substr(hex, word * 8 + 1, 8), 16, '0'))::bit(64)::bigint;
  end loop;
  for place in 1..27 loop
    digits := substr(alphabet, mod(number, 62)::integer + 1, 1) || digits;
    number := div(number, 62);
  end loop;
  return prefix || '_' || digits;
end
$$;

-- The id of a row by its public form; null for what is none. A constant to the planner, so it finds the row by its index.
create function posthaste_id(public_id text) returns uuid language plpgsql immutable strict parallel safe as $$
declare
  alphabet constant text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  parts constant text[] := regexp_match(public_id, '^(app|atmpt|ep|evtype|msg|org)_([0-9A-Za-z]{27})$');
  number numeric := 0;
  hex text := '';
  id uuid;
begin
  if parts is null then
    return null;
  end if;
  for place in 1..27 loop
    number := number * 62 + strpos(alphabet, substr(parts[2], place, 1)) - 1;
  end loop;
  for word in 1..4 loop
    hex := lpad(to_hex(mod(number, 4294967296)::bigint), 8, '0') || hex;
    number := div(number, 4294967296);
  end loop;
  id := hex::uuid;
  -- What we could not have written is no id of ours.
  return case when substr(hex, 13, 1) = '7' and posthaste_id(parts[1], id) = public_id then id end;
end
$$;
